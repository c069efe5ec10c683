#!/usr/bin/python3 -B
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/packets/icmp_cases.json: ICMP errors rewritten, and packets translated between
IPv4 and IPv6, as scapy has them. With --check it only says whether the file is what it would write.

    {"name", "frame", "parsed", "key", "action", "result", "out"}
    parsed: outcome of parse_frame.  key: what it sets, for what quotes a packet.
    action: {"do": "rewrite" | "translate" | "translate_error" | "unwrap" and its parameters}; then
    result: the outcome, and where that is undecided out: the IP packet that leaves. An unwrap has
    not_unwrapped or not_told instead of an outcome, and inner_key.

Both the packet that an error quotes and the one that its receiver knows are built whole, with
checksums by scapy, and only then cut off.
"""

import struct
import sys

from scapy.all import (GRE, ICMP, IP, SCTP, TCP, UDP, Dot1Q, Ether, IPOption_LSRR, IPOption_NOP,
                       IPOption_RR, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
                       IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, Raw, SCTPChunkData, checksum)
from scapy.layers.inet6 import in6_chksum

from case_file import json_lines, write_or_check

OWN_MAC, OTHER_MAC = '02:00:00:00:0a:fe', '02:00:00:00:0c:01'
CLIENT = {4: '10.1.0.1', 6: '2001:db8:1::1'}
VIP = {4: '10.9.0.1', 6: '2001:db8:9::1'}
SERVER = {4: '10.2.0.1', 6: '2001:db8:2::1'}
LOCAL = {4: '10.2.0.200', 6: '2001:db8:2::c8'}
ROUTER = {4: '10.3.0.9', 6: '2001:db8:3::9'}
CLIENT_PORT, SERVICE_PORT, SERVER_PORT, LOCAL_PORT = 40001, 80, 8080, 30001
NET = {4: IP, 6: IPv6}
FAMILIES = (4, 6)
OTHER = {4: 6, 6: 4}
PROTOCOLS = ('tcp', 'udp', 'sctp')
NUMBER = {'icmp': 1, 'tcp': 6, 'udp': 17, 'icmpv6': 58, 'sctp': 132}
PAYLOAD = b'an odd number of bytes.'
ID = 0x4321
LEAST_QUOTED = 8
UNREACHABLE, TOO_BIG = {4: (3, 1), 6: (1, 0)}, {4: (3, 4), 6: (2, 0)}

CHECKSUM = {'tcp': (16, 18), 'udp': (6, 8), 'sctp': (8, 12)}  # in the transport header

cases = []


# ---- Packets ----

def transport(protocol, sport, dport, payload=PAYLOAD, sequence=0x01020304):
    if protocol == 'tcp':
        return TCP(sport=sport, dport=dport, seq=sequence, ack=0x0a0b0c0d, flags='A', window=512,
                   options=[('NOP', None), ('NOP', None), ('Timestamp', (7, 9))]) / Raw(payload)
    if protocol == 'udp':
        return UDP(sport=sport, dport=dport) / Raw(payload)
    return SCTP(sport=sport, dport=dport, tag=0x11223344) / SCTPChunkData(
        beginning=1, ending=1, tsn=5, data=payload)


def transport_of(packet):
    for layer in (TCP, UDP, SCTP):
        if layer in packet:
            return packet[layer]
    raise ValueError(packet.summary())


def fresh(packet):
    return packet.__class__(bytes(packet))


def net(family, source, destination, tos=0, hops=64, **fields):
    if family == 4:
        return IP(src=source, dst=destination, tos=tos, ttl=hops, **fields)
    return IPv6(src=source, dst=destination, tc=tos, hlim=hops, **fields)


def error(family, source, destination, kind, quote, rest=0, extension=(), **fields):
    """An ICMP error around the bytes `quote`, its checksum by scapy."""
    message = struct.pack('!BBHI', *kind, 0, rest) + quote
    packet = net(family, source, destination, **fields)
    if family == 4:
        packet.proto = 1
        total = checksum(message)
    else:
        total = in6_chksum(58, packet, message)
        for header in extension:
            header.nh = 58
            packet = packet / header
        if not extension:
            packet.nh = 58
    return fresh(packet / Raw(message[:2] + struct.pack('!H', total) + message[4:]))


def cut_off(known, header, quoted, quoted_header, protocol, cut):
    """`cut` bytes of transport header and payload. Half a checksum cannot be restored."""
    first, end = CHECKSUM[protocol]
    known = known[:header + cut]
    if first < cut < end:
        known = known[:header + first] + quoted[quoted_header + first:quoted_header + cut]
    return known


def framed(packet, family, vlan=0, padding=b''):
    kind = 0x0800 if family == 4 else 0x86dd
    if vlan:
        start = Ether(dst=OWN_MAC, src=OTHER_MAC) / Dot1Q(vlan=vlan, type=kind)
    else:
        start = Ether(dst=OWN_MAC, src=OTHER_MAC, type=kind)
    return bytes(start) + bytes(packet) + padding


# ---- Cases ----

def case(name, frame, parsed, key=None, action=None, result=None, out=None):
    entry = {'name': name, 'frame': bytes(frame).hex(), 'parsed': parsed}
    if key:
        entry['key'] = key
    if action:
        entry['action'] = action
        entry['result'] = result or 'undecided'
    if out is not None:
        entry['out'] = bytes(out).hex()
    cases.append(entry)


def key_of(source, sport, destination, dport, protocol):
    return {'source': source, 'source_port': sport, 'destination': destination,
            'destination_port': dport, 'protocol': NUMBER.get(protocol, protocol)}


# ---- Errors of one family ----

# What is quoted of a flow (source, port, destination, port), and what the receiver knows.
def ends(family, mode, towards):
    if towards == 'client':
        mine = (CLIENT[family], CLIENT_PORT, VIP[family], SERVICE_PORT)
        if mode == 'nat':
            return (CLIENT[family], CLIENT_PORT, SERVER[family], SERVER_PORT), mine
        return (LOCAL[family], LOCAL_PORT, SERVER[family], SERVER_PORT), mine
    quoted = (VIP[family], SERVICE_PORT, CLIENT[family], CLIENT_PORT)
    if mode == 'nat':
        return quoted, (SERVER[family], SERVER_PORT, CLIENT[family], CLIENT_PORT)
    return quoted, (SERVER[family], SERVER_PORT, LOCAL[family], LOCAL_PORT)


def whole(family, flow, protocol, **fields):
    """The packet of a flow; `fields` of the IP header, `payload` and `sequence` of what follows."""
    above = {name: fields.pop(name) for name in ('payload', 'sequence') if name in fields}
    extension = fields.pop('extension', ())
    packet = net(family, flow[0], flow[2], **fields)
    for header in extension:
        packet = packet / header
    return fresh(packet / transport(protocol, flow[1], flow[3], **above))


def rewrite_action(known, sender, **more):
    return {'do': 'rewrite', 'sender': sender, 'receiver': known[0], 'receiver_port': known[1],
            'peer': known[2], 'peer_port': known[3]} | more


def rewritten(name, family, mode, towards, protocol, cut=None, kind=None, rest=0, rest_out=None,
              quoted_edit=None, more=None, outer=None, **fields):
    """A router's error about a packet. `cut`: bytes quoted of the transport header and payload;
    `quoted_edit` is applied to the bytes quoted and known."""
    quoted_flow, known_flow = ends(family, mode, towards)
    sequence = fields.pop('sequence', 0x01020304)
    change = (more or {}).get('sequence_change', 0)
    packet = whole(family, quoted_flow, protocol, sequence=sequence, **fields)
    quoted, header = bytes(packet), len(bytes(packet)) - len(bytes(transport_of(packet)))
    known = bytes(whole(family, known_flow, protocol,
                        sequence=(sequence + change) & 0xffffffff, **fields))
    quoted, known = ((quoted_edit or bytes)(packet) for packet in (quoted, known))
    if cut is not None:
        known = cut_off(known, header, quoted, header, protocol, cut)
        quoted = quoted[:header + cut]
    kind = kind or UNREACHABLE[family]
    sender = VIP[family] if towards == 'client' else (
        ROUTER[family] if mode == 'nat' else LOCAL[family])
    outer = outer or {}
    came = error(family, ROUTER[family], quoted_flow[0], kind, quoted, rest, **outer)
    left = error(family, sender, known_flow[0], kind, known,
                 rest if rest_out is None else rest_out, **outer)
    case(f'{name}, {mode} to the {towards}, ipv{family} {protocol}', framed(came, family),
         'undecided', key_of(*quoted_flow[2:], *quoted_flow[:2], protocol),
         rewrite_action(known_flow, sender, **(more or {})), out=left)


def each_way():
    return [(family, mode, towards) for family in FAMILIES for mode in ('nat', 'fullnat')
            for towards in ('client', 'server')]


def errors_rewritten():
    for family, mode, towards in each_way():
        for protocol in PROTOCOLS:
            way = (family, mode, towards, protocol)
            rewritten('the whole packet quoted', *way)
            rewritten('8 bytes quoted', *way, cut=LEAST_QUOTED)
            rewritten('11 bytes quoted', *way, cut=11)
            rewritten('12 bytes quoted', *way, cut=12)
            rewritten('17 bytes quoted', *way, cut=17)
            rewritten('18 bytes quoted', *way, cut=18)
            rewritten('too big', *way, kind=TOO_BIG[family], rest=1400)
    for family in FAMILIES:
        way = (family, 'nat', 'client', 'udp')
        for kind in ({4: [(3, 0), (3, 15), (4, 0), (11, 0), (11, 1), (12, 0), (12, 1)],
                      6: [(1, 4), (3, 0), (3, 1), (4, 0), (4, 1), (4, 2)]}[family]):
            rewritten(f'type {kind[0]} code {kind[1]}', *way, kind=kind, rest=0x07000000)


def quotes_of_all_sorts():
    for mode, towards in (('nat', 'client'), ('fullnat', 'server')):
        for protocol in PROTOCOLS:
            options = [IPOption_NOP()] * 3 + [IPOption_RR(routers=['1.2.3.4'])]
            rewritten('ipv4 options quoted', 4, mode, towards, protocol, options=options)
            rewritten('ipv4 options quoted and cut', 4, mode, towards, protocol,
                      cut=LEAST_QUOTED, options=options)
            chain = [IPv6ExtHdrHopByHop(), IPv6ExtHdrRouting(addresses=[], segleft=0),
                     IPv6ExtHdrDestOpt()]
            rewritten('ipv6 extension headers quoted', 6, mode, towards, protocol,
                      extension=chain)
            rewritten('ipv6 extension headers quoted and cut', 6, mode, towards, protocol,
                      cut=LEAST_QUOTED, extension=chain)
    for family in FAMILIES:
        at = 20 if family == 4 else 40

        def no_checksum(raw, at=at):
            return raw[:at + 6] + b'\0\0' + raw[at + 8:]

        rewritten('no udp checksum quoted', family, 'nat', 'client', 'udp',
                  quoted_edit=no_checksum)
        for protocol, offset in (('tcp', 16), ('udp', 6)):

            def wrong(raw, at=at + offset):
                value = int.from_bytes(raw[at:at + 2], 'big') + 0x1111
                value = (value & 0xffff) + (value >> 16)
                return raw[:at] + value.to_bytes(2, 'big') + raw[at + 2:]

            rewritten('a wrong checksum quoted stays wrong', family, 'nat', 'client', protocol,
                      quoted_edit=wrong)
        rewritten('bytes behind the quoted packet', family, 'nat', 'client', 'tcp',
                  quoted_edit=lambda raw: raw + b'\0' * 70 + b'\x20\0abcd')
        rewritten('outer fields', family, 'nat', 'client', 'tcp', outer={'tos': 0xc0, 'hops': 3})

    rewritten('ipv4 options of the error', 4, 'fullnat', 'client', 'tcp',
              outer={'options': [IPOption_NOP()] * 4})
    rewritten('ipv6 extension headers of the error', 6, 'fullnat', 'client', 'tcp',
              outer={'extension': [IPv6ExtHdrDestOpt()]})
    rewritten('a first fragment quoted', 4, 'nat', 'client', 'udp', flags='MF')
    rewritten('a first fragment quoted', 6, 'nat', 'client', 'udp',
              extension=[IPv6ExtHdrFragment(offset=0, m=1, id=7)])

    # The length in the host's byte order, as some systems quote it; the header's checksum follows.
    def spoiled(raw):
        raw = raw[:2] + raw[3:1:-1] + raw[4:10] + b'\0\0' + raw[12:]
        return raw[:10] + struct.pack('!H', checksum(raw[:20])) + raw[12:]

    rewritten('a spoiled length quoted', 4, 'nat', 'client', 'tcp', quoted_edit=spoiled)


def what_weir_adds():
    for family in FAMILIES:
        shift = {'sequence_change': (-28) & 0xffffffff, 'growth': 28}
        for sequence in (0x01020304, 5, 0xfffffff0):
            rewritten(f'sequence {sequence:#x} shifted', family, 'fullnat', 'client', 'tcp',
                      sequence=sequence, kind=TOO_BIG[family], rest=1500, rest_out=1472, more=shift)
        rewritten('sequence shifted, 8 bytes quoted', family, 'fullnat', 'client', 'tcp',
                  cut=LEAST_QUOTED, more=shift)
        rewritten('no mtu told', family, 'fullnat', 'client', 'tcp', kind=TOO_BIG[family], rest=0,
                  more=shift)


def not_followed():
    for family in FAMILIES:
        def came(quote, kind=None, rest=0, family=family):
            return error(family, ROUTER[family], CLIENT[family], kind or UNREACHABLE[family],
                         bytes(quote), rest)

        flow = (CLIENT[family], CLIENT_PORT, SERVER[family], SERVER_PORT)
        packet = whole(family, flow, 'udp')
        kinds = {4: [(0, 0), (5, 1), (8, 0), (9, 0), (13, 0), (30, 0), (255, 0)],
                 6: [(0, 0), (5, 0), (100, 0), (127, 0), (128, 0), (129, 0), (135, 0), (137, 0)]}
        for kind in kinds[family]:
            case(f'type {kind[0]} code {kind[1]} is no error to follow, ipv{family}',
                 framed(came(packet, kind), family), 'kernel_icmp')
        header = 20 if family == 4 else 40
        for cut in (0, 1, 19, header - 1, header, header + LEAST_QUOTED - 1):
            quote = bytes(packet)[:cut]
            key = None
            if cut >= header:
                key = key_of(SERVER[family], 0, CLIENT[family], 0, 'udp')
            case(f'{cut} bytes quoted, ipv{family}', framed(came(quote), family), 'kernel_icmp',
                 key)
        tunnel = net(family, CLIENT[family], SERVER[family]) / IP(src='1.2.3.4', dst='5.6.7.8')
        case(f'a tunnel packet quoted, ipv{family}', framed(came(fresh(tunnel)), family),
             'kernel_icmp', key_of(SERVER[family], 0, CLIENT[family], 0, 4))
        spoiled = bytearray(bytes(came(packet)))
        spoiled[-1] ^= 1
        case(f'a wrong icmp checksum, ipv{family}', framed(spoiled, family),
             'drop_bad_icmp_checksum')
        other = bytearray(bytes(packet))
        other[0] = 0x65 if family == 4 else 0x45
        case(f'another version quoted, ipv{family}', framed(came(other), family), 'kernel_icmp')
        truncated = net(family, ROUTER[family], CLIENT[family]) / Raw(b'\3\1\0\0\0\0\0')
        setattr(truncated, 'proto' if family == 4 else 'nh', 1 if family == 4 else 58)
        case(f'no whole icmp header, ipv{family}', framed(fresh(truncated), family), 'kernel_icmp')
    later = whole(4, (CLIENT[4], 1, SERVER[4], 2), 'udp', frag=3, flags='MF')
    case('a later fragment quoted, ipv4',
         framed(error(4, ROUTER[4], CLIENT[4], (3, 1), bytes(later)), 4), 'kernel_icmp',
         key_of(SERVER[4], 0, CLIENT[4], 0, 'udp'))
    later = whole(6, (CLIENT[6], 1, SERVER[6], 2), 'udp',
                  extension=[IPv6ExtHdrFragment(offset=3, m=1, id=7)])
    case('a later fragment quoted, ipv6',
         framed(error(6, ROUTER[6], CLIENT[6], (1, 0), bytes(later)), 6), 'kernel_icmp',
         key_of(SERVER[6], 0, CLIENT[6], 0, 'udp'))
    short = bytearray(bytes(whole(4, (CLIENT[4], 1, SERVER[4], 2), 'udp')))
    short[0] = 0x44
    case('a header of 16 bytes quoted',
         framed(error(4, ROUTER[4], CLIENT[4], (3, 1), bytes(short)), 4), 'kernel_icmp')
    chain = whole(6, (CLIENT[6], 1, SERVER[6], 2), 'udp',
                  extension=[IPv6ExtHdrDestOpt() for _ in range(9)])
    case('too many extension headers quoted',
         framed(error(6, ROUTER[6], CLIENT[6], (1, 0), bytes(chain)), 6), 'kernel_icmp')
    case('icmp in ipv6', framed(fresh(IPv6(src=ROUTER[6], dst=CLIENT[6], nh=1) /
                                      Raw(bytes(ICMP(type=3)) + bytes(40))), 6), 'kernel_icmp')


# ---- Translated packets ----

# To the server: (source, port, destination, port) as the client sends, as the server gets it.
def crossing(family, towards='server'):
    to = OTHER[family]
    if towards == 'server':
        return ((CLIENT[family], CLIENT_PORT, VIP[family], SERVICE_PORT),
                (LOCAL[to], LOCAL_PORT, SERVER[to], SERVER_PORT))
    return ((SERVER[family], SERVER_PORT, LOCAL[family], LOCAL_PORT),
            (VIP[to], SERVICE_PORT, CLIENT[to], CLIENT_PORT))


def fragment_flag(total, may_fragment=False):
    return 0 if total <= 1260 or may_fragment else 'DF'


def crossed(family, flow, packet, tos, hops, may_fragment=False):
    """The transport of `packet` between the ends of `flow`, in an IP header of `family`."""
    above = transport_of(packet).copy()
    above.sport, above.dport = flow[1], flow[3]
    del above.chksum
    made = net(family, flow[0], flow[2], tos=tos, hops=hops)
    if family == 4:
        made.id = ID
        made.flags = fragment_flag(20 + len(bytes(above)), may_fragment)
    return fresh(made / above)


def translate_action(flow):
    return {'do': 'translate', 'source': flow[0], 'source_port': flow[1], 'destination': flow[2],
            'destination_port': flow[3], 'id': ID}


def translated(name, family, protocol, came, out=None, result=None, towards='server', **frame):
    before, after = crossing(family, towards)
    case(f'{name}, ipv{family} {protocol} to the {towards}', framed(came, family, **frame),
         'undecided', key_of(*before, protocol), translate_action(after), result, out)


def simply_translated(name, family, protocol, towards='server', may_fragment=False, **fields):
    before, after = crossing(family, towards)
    packet = whole(family, before, protocol, **fields)
    out = crossed(OTHER[family], after, packet, fields.get('tos', 0), fields.get('hops', 64),
                  may_fragment)
    translated(name, family, protocol, packet, out, towards=towards)


def ones_complement(a, b):
    total = a + b
    return (total & 0xffff) + (total >> 16)


def packets_translated():
    for family in FAMILIES:
        for protocol in PROTOCOLS:
            for towards in ('server', 'client'):
                simply_translated('plain', family, protocol, towards)
            simply_translated('empty', family, protocol, payload=b'')
            simply_translated('tos and hops', family, protocol, tos=0xb9, hops=2)
            for total in (1240, 1241, 1260, 1261, 1280, 1281, 1480, 1500):
                bare = len(bytes(whole(family, crossing(family)[0], protocol, payload=b'')))
                if protocol == 'sctp' and (total - bare) % 4:
                    continue
                simply_translated(f'{total} bytes', family, protocol,
                                  payload=b'a' * (total - bare))
        for protocol in ('tcp', 'udp'):
            before, after = crossing(family)
            came = whole(family, before, protocol)
            out = crossed(OTHER[family], after, came, 0, 64)
            for packet in (came, out):
                above = transport_of(packet)
                above.chksum = ones_complement(above.chksum, 0x1111)
            translated('a wrong checksum stays wrong', family, protocol, came, out)
        before, after = crossing(family)
        came = whole(family, before, 'udp')
        out = crossed(OTHER[family], after, came, 0, 64)
        came[UDP].chksum = 0
        translated('no checksum', family, 'udp', came, out)
        # Two bytes of payload that bring the sum to zero, which is written as ffff.
        trial = crossed(OTHER[family], after, whole(family, before, 'udp', payload=b'\0\0'), 0, 64)
        zero = trial[UDP].chksum.to_bytes(2, 'big')
        simply_translated('a sum of zero', family, 'udp', payload=zero)
        came = whole(family, before, 'udp', payload=zero)
        out = crossed(OTHER[family], after, came, 0, 64)
        assert out[UDP].chksum == 0xffff
        came[UDP].chksum = 0
        translated('no checksum and a sum of zero', family, 'udp', came, out)
        came = whole(family, before, 'tcp')
        out = crossed(OTHER[family], after, came, 0, 64)
        translated('a vlan tag', family, 'tcp', came, out, vlan=7)
        translated('padding', family, 'tcp', came, out, padding=b'\xaa' * 9)
    # A UDP length that leaves bytes over.
    before, after = crossing(6)
    came = whole(6, before, 'udp')
    out = crossed(4, after, came, 0, 64)
    longer = fresh(IPv6(src=came.src, dst=came.dst, nh=17) / Raw(bytes(came[UDP]) + b'over'))
    out = fresh(IP(src=out.src, dst=out.dst, id=ID, flags=0, proto=17) /
                Raw(bytes(out[UDP]) + b'over'))
    translated('bytes behind the datagram', 6, 'udp', longer, out)


def headers_left_out():
    simply_translated('a flow label', 6, 'tcp', fl=0x12345)
    options = {'nops': [IPOption_NOP()] * 8, 'record route': [IPOption_RR(routers=['1.2.3.4'])],
               'a route used up': [IPOption_LSRR(routers=['1.2.3.4'], pointer=8), IPOption_NOP()]}
    before, after = crossing(4)
    for name, chosen in options.items():
        for protocol in PROTOCOLS:
            bare = whole(4, before, protocol)
            # Around finished bytes: scapy takes a route's last hop for the destination.
            came = fresh(IP(src=bare.src, dst=bare.dst, proto=bare.proto, options=chosen) /
                         Raw(bytes(transport_of(bare))))
            translated(f'options: {name}', 4, protocol, came, crossed(6, after, bare, 0, 64))
    for name, chosen in {'a route to go': [IPOption_LSRR(routers=['1.2.3.4'])],
                         'a route to go behind nops': [IPOption_NOP(), IPOption_NOP(),
                                                       IPOption_LSRR(routers=['1.2.3.4'])]}.items():
        translated(f'options: {name}', 4, 'udp', whole(4, crossing(4)[0], 'udp', options=chosen),
                   result='drop_untranslatable')
    # Options that end in the middle of one.
    came = bytearray(bytes(whole(4, crossing(4)[0], 'udp', options=[IPOption_NOP()] * 4)))
    out = crossed(6, crossing(4)[1], whole(4, crossing(4)[0], 'udp'), 0, 64)
    for tail in (b'\1\1\1\x83', b'\1\x83\7\4', b'\x83\0\4\4', b'\x83\1\4\4', b'\0\x83\3\1'):
        came[20:24] = tail
        came[10:12] = b'\0\0'
        came[10:12] = struct.pack('!H', checksum(bytes(came[:24])))
        translated(f'options: {tail.hex()}', 4, 'udp', Raw(bytes(came)), out)
    chains = {'hop by hop': [IPv6ExtHdrHopByHop()], 'destination': [IPv6ExtHdrDestOpt()],
              'routing, no segments left': [IPv6ExtHdrRouting(addresses=['::1'], segleft=0)],
              'several': [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(),
                          IPv6ExtHdrRouting(addresses=[], segleft=0), IPv6ExtHdrDestOpt()]}
    for name, chain in chains.items():
        for protocol in PROTOCOLS:
            simply_translated(f'extension: {name}', 6, protocol, extension=chain)
    for protocol in PROTOCOLS:
        simply_translated('an atomic fragment', 6, protocol, may_fragment=True,
                          payload=b'b' * 1300, extension=[IPv6ExtHdrFragment(offset=0, m=0, id=9)])
    simply_translated('an atomic fragment behind options', 6, 'tcp', may_fragment=True,
                      payload=b'b' * 1300,
                      extension=[IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(offset=0, m=0, id=9)])
    for chain in ([IPv6ExtHdrRouting(addresses=['::1'], segleft=1)],
                  [IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(addresses=['::1'], segleft=1)]):
        translated(f'extension: {len(chain)}, segments left', 6, 'udp',
                   whole(6, crossing(6)[0], 'udp', extension=chain), result='drop_untranslatable')


# ---- Translated errors ----

def error_crossing(family, towards):
    """What is quoted in `family`, and what the receiver of the other family knows."""
    to = OTHER[family]
    if towards == 'client':
        return ((LOCAL[family], LOCAL_PORT, SERVER[family], SERVER_PORT),
                (CLIENT[to], CLIENT_PORT, VIP[to], SERVICE_PORT))
    return ((VIP[family], SERVICE_PORT, CLIENT[family], CLIENT_PORT),
            (SERVER[to], SERVER_PORT, LOCAL[to], LOCAL_PORT))


def known_packet(family, flow, protocol, total_payload, **fields):
    if family == 4:
        fields = fields | {'id': 0, 'flags': fragment_flag(20 + total_payload)}
    return whole(family, flow, protocol, **fields)


def error_translated(name, family, kind, new_kind, protocol='udp', towards='client', rest=0,
                     new_rest=0, cut=None, behind=b'', limit=None, more=None, outer=None,
                     quoted_fields=None, **fields):
    """`cut`: bytes quoted of the transport header and payload. `new_kind` None: dropped."""
    to = OTHER[family]
    outer = outer or {}
    quoted_flow, known_flow = error_crossing(family, towards)
    sequence = fields.pop('sequence', 0x01020304)
    change = (more or {}).get('sequence_change', 0)
    packet = whole(family, quoted_flow, protocol, sequence=sequence, **fields,
                   **(quoted_fields or {}))
    size = len(bytes(transport_of(packet)))
    header = len(bytes(packet)) - size
    quoted = bytes(packet)[:None if cut is None else header + cut] + behind
    came = error(family, ROUTER[family], quoted_flow[0], kind, quoted, rest, **outer)
    known = bytes(known_packet(to, known_flow, protocol, size,
                               sequence=(sequence + change) & 0xffffffff, **fields))
    if cut is not None:
        known = cut_off(known, 20 if to == 4 else 40, bytes(packet), header, protocol, cut)
    if limit:
        known = known[:limit - 8 - (20 if to == 4 else 40)]
    out = None
    fields_out = {'tos': outer.get('tos', 0), 'hops': outer.get('hops', 64)}
    if new_kind:
        if to == 4:
            fields_out |= {'id': ID, 'flags': fragment_flag(28 + len(known))}
        out = error(to, known_flow[2], known_flow[0], new_kind, known, new_rest, **fields_out)
    case(f'{name}, from ipv{family} to the {towards}, {protocol}', framed(came, family),
         'undecided', key_of(*quoted_flow[2:], *quoted_flow[:2], protocol),
         rewrite_action(known_flow, known_flow[2], **(more or {})) |
         {'do': 'translate_error', 'id': ID},
         'undecided' if new_kind else 'drop_untranslatable', out)


def errors_translated():
    for family, kind, new_kind in ((4, (3, 3), (1, 4)), (6, (1, 4), (3, 3))):
        for towards in ('client', 'server'):
            for protocol in PROTOCOLS:
                way = {'protocol': protocol, 'towards': towards}
                error_translated('the whole packet quoted', family, kind, new_kind, **way)
                for cut in (8, 11, 12, 17, 18):
                    error_translated(f'{cut} bytes quoted', family, kind, new_kind, cut=cut, **way)
        error_translated('tos and hops', family, kind, new_kind, tos=0x21, hops=9,
                         outer={'tos': 0xc0, 'hops': 250})
        error_translated('a long packet quoted', family, kind, new_kind, payload=b'l' * 1400,
                         cut=500)
        error_translated('sequence shifted', family, kind, new_kind, 'tcp',
                         more={'sequence_change': (-52) & 0xffffffff, 'growth': 52})
    error_translated('more quoted than a router may', 4, (3, 3), (1, 4), payload=b'l' * 1400,
                     limit=1280)
    error_translated('more quoted than a router may', 6, (1, 4), (3, 3), payload=b'l' * 1150,
                     limit=576)
    # RFC 4884: the quote padded to 128 bytes, then a structure of one object.
    objects = b'\x20\0' + bytes(2) + b'\0\x08\1\1' + b'mpls'
    error_translated('extensions', 4, (11, 0), (3, 0), rest=32 << 16, behind=bytes(77) + objects)
    error_translated('extensions', 6, (3, 0), (11, 0), rest=16 << 24, behind=bytes(57) + objects)
    error_translated('extensions behind a long packet', 4, (3, 4), (2, 0), payload=b'l' * 1472,
                     rest=32 << 16 | 1400, new_rest=1420, cut=108, behind=objects)
    error_translated('extensions behind a long packet', 6, (1, 0), (3, 1), payload=b'l' * 1300,
                     rest=17 << 24, cut=96, behind=objects)
    error_translated('a length too small for extensions', 4, (11, 0), (3, 0), rest=5 << 16)
    error_translated('options quoted', 4, (3, 3), (1, 4),
                     quoted_fields={'options': [IPOption_NOP()] * 4})
    error_translated('extension headers quoted', 6, (1, 4), (3, 3), 'tcp',
                     quoted_fields={'extension': [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()]})
    error_translated('options of the error', 4, (3, 3), (1, 4),
                     outer={'options': [IPOption_NOP()] * 4})
    error_translated('extension headers of the error', 6, (1, 4), (3, 3),
                     outer={'extension': [IPv6ExtHdrDestOpt()]})
    error_translated('segments left of the error', 6, (1, 4), None,
                     outer={'extension': [IPv6ExtHdrRouting(addresses=[], segleft=1)]})


# RFC 7915 section 4.2: (type, code) of ICMP -> of ICMPv6.
NO_ROUTE, PROHIBITED = (1, 0), (1, 1)
TO_ICMPV6 = {
    3: {0: NO_ROUTE, 1: NO_ROUTE, 2: (4, 1), 3: (1, 4), 5: NO_ROUTE, 6: NO_ROUTE, 7: NO_ROUTE,
        8: NO_ROUTE, 9: PROHIBITED, 10: PROHIBITED, 11: NO_ROUTE, 12: NO_ROUTE, 13: PROHIBITED,
        15: PROHIBITED},
    4: {},
    11: {0: (3, 0), 1: (3, 1)},
}
# Section 5.2.
TO_ICMP = {
    1: {0: (3, 1), 1: (3, 10), 2: (3, 1), 3: (3, 1), 4: (3, 3)},
    3: {0: (11, 0), 1: (11, 1)},
}
# Figures 3 and 6, by the name of the field: first and last byte.
FIELDS4 = {'version': (0, 0), 'class': (1, 1), 'length': (2, 3), 'hops': (8, 8),
           'protocol': (9, 9), 'source': (12, 15), 'destination': (16, 19)}
FIELDS6 = {'version': (0, 0), 'class': (1, 1), 'length': (4, 5), 'protocol': (6, 6),
           'hops': (7, 7), 'source': (8, 23), 'destination': (24, 39)}


def pointer(value, fields, others):
    for name, (first, last) in fields.items():
        if first <= value <= last:
            return others[name][0]
    return None


def kinds_translated():
    for kind, codes in TO_ICMPV6.items():
        for code in range(17):
            if (kind, code) == (3, 4):
                continue
            new = codes.get(code)
            error_translated(f'type {kind} code {code}', 4, (kind, code), new,
                             new_rest=6 if new == (4, 1) else 0)
    for kind, codes in TO_ICMP.items():
        for code in range(8):
            error_translated(f'type {kind} code {code}', 6, (kind, code), codes.get(code))
    for code in range(4):
        for at in range(24):
            to = pointer(at, FIELDS4, FIELDS6) if code in (0, 2) else None
            error_translated(f'parameter problem {code} at {at}', 4, (12, code),
                             None if to is None else (4, 0), rest=at << 24, new_rest=to or 0)
    for at in list(range(44)) + [255, 256, 0x01000000]:
        to = pointer(at, FIELDS6, FIELDS4)
        error_translated(f'parameter problem 0 at {at}', 6, (4, 0),
                         None if to is None else (12, 0), rest=at, new_rest=(to or 0) << 24)
    error_translated('parameter problem 1', 6, (4, 1), (3, 2), rest=40)
    for code in (2, 3, 4):
        error_translated(f'parameter problem {code}', 6, (4, code), None, rest=40)
    error_translated('too big with a code', 6, (2, 1), None, rest=1400)


def mtus_translated():
    long = {'payload': b'm' * 1472, 'cut': 64}
    for mtu in (68, 576, 1259, 1260, 1261, 1300, 1480, 1500, 9000, 65535):
        error_translated(f'mtu {mtu}', 4, (3, 4), (2, 0), rest=mtu, new_rest=max(1280, mtu + 20),
                         **long)
    for mtu in (0, 1, 68, 1279, 1280, 1281, 1400, 1500, 9000, 65535, 65536, 0xffffffff):
        known = min(max(mtu, 1280), 65535)
        error_translated(f'mtu {mtu}', 6, (2, 0), (3, 4), rest=mtu, new_rest=known - 20, **long)
    growth = {'growth': 28, 'sequence_change': 0}
    error_translated('mtu 1400 and growth', 4, (3, 4), (2, 0), rest=1400, new_rest=1392,
                     more=growth, **long)
    error_translated('mtu 1280 and growth', 4, (3, 4), (2, 0), rest=1280, new_rest=1280,
                     more=growth, **long)
    error_translated('mtu 1400 and growth', 6, (2, 0), (3, 4), rest=1400, new_rest=1352,
                     more=growth, **long)
    # RFC 1191 section 7.1: a router that does not tell.
    for size, likely in ((1000, 1280), (1300, 1280), (1492, 1280), (1493, 1492), (1500, 1492),
                         (2002, 1492), (2003, 2002), (9000, 8166)):
        error_translated(f'no mtu, a packet of {size} bytes', 4, (3, 4), (2, 0),
                         payload=b'm' * (size - 28), cut=32, new_rest=likely)


# ---- Errors about tunnel packets ----

GUE_PORT, GUE_SOURCE = 6080, 40000
DIRECTOR = LOCAL


def in_tunnel(kind, inner):
    family = 4 if inner.name == 'IP' else 6
    outer = net(family, DIRECTOR[family], SERVER[family], hops=63)
    if kind == 'ipip':
        return fresh(outer / inner)
    if kind == 'gue':
        gue = b'\0' + bytes([4 if family == 4 else 41, 0, 0])
        return fresh(outer / UDP(sport=GUE_SOURCE, dport=GUE_PORT) / Raw(gue + bytes(inner)))
    return fresh(outer / GRE(chksum_present=int(kind == 'gre-csum')) / inner)


OVERHEAD = {'ipip': 0, 'gue': 12, 'gre': 4, 'gre-csum': 8}


def tunnel_error(name, tunnel, family, kind, protocol='udp', told=True, rest=0, new_rest=0,
                 cut=None, unwrapped=True, **fields):
    """`cut`: bytes quoted of the transport header and payload of the tunnelled packet."""
    flow = (CLIENT[family], CLIENT_PORT, VIP[family], SERVICE_PORT)
    inner = whole(family, flow, protocol, **fields)
    outer = in_tunnel(tunnel, inner)
    header = len(bytes(inner)) - len(bytes(transport_of(inner)))
    end = None if cut is None else len(bytes(outer)) - len(bytes(inner)) + header + cut
    came = error(family, ROUTER[family], DIRECTOR[family], kind, bytes(outer)[:end], rest)
    number = {'ipip': 4 if family == 4 else 41, 'gue': 17}.get(tunnel, 47)
    ports = (GUE_PORT, GUE_SOURCE) if tunnel == 'gue' else (0, 0)
    overhead = (20 if family == 4 else 40) + OVERHEAD[tunnel]
    out = None
    if unwrapped and told:
        fields_out = {'id': ID, 'tos': 0xc0} if family == 4 else {}
        known = bytes(inner)[:None if cut is None else header + cut]
        known = known[:548 if family == 4 else 1280 - 48]
        out = error(family, VIP[family], CLIENT[family], kind, known, new_rest, **fields_out)
    result = 'undecided' if out else 'not_told' if unwrapped else 'not_unwrapped'
    case(f'{name}, {tunnel}, ipv{family} {protocol}', framed(came, family),
         'undecided' if tunnel == 'gue' else 'kernel_icmp',
         key_of(SERVER[family], ports[0], DIRECTOR[family], ports[1], number),
         {'do': 'unwrap', 'overhead': overhead, 'id': ID}, result, out)
    if unwrapped:
        cases[-1]['inner_key'] = key_of(*flow, protocol)


def tunnel_errors():
    for family in FAMILIES:
        unreachable, too_big = UNREACHABLE[family], TOO_BIG[family]
        keep = {'flags': 'DF'} if family == 4 else {}
        for tunnel in OVERHEAD:
            for protocol in PROTOCOLS:
                tunnel_error('unreachable', tunnel, family, unreachable, protocol)
            tunnel_error('8 bytes quoted', tunnel, family, unreachable, cut=8)
            tunnel_error('7 bytes quoted', tunnel, family, unreachable, cut=7, unwrapped=False)
            tunnel_error('no port quoted', tunnel, family, unreachable, cut=0, unwrapped=False)
            overhead = (20 if family == 4 else 40) + OVERHEAD[tunnel]
            tunnel_error('too big', tunnel, family, too_big, rest=1400, new_rest=1400 - overhead,
                         payload=b'p' * 1300, **keep)
        for kind in {4: [(3, 13), (4, 0), (11, 0), (11, 1)],
                     6: [(1, 4), (3, 0), (3, 1)]}[family]:
            tunnel_error(f'type {kind[0]} code {kind[1]}', 'ipip', family, kind, rest=0)
        tunnel_error('parameter problem', 'ipip', family, (12, 0) if family == 4 else (4, 0),
                     told=False)
    tunnel_error('too big, may be fragmented', 'ipip', 4, (3, 4), rest=1400, told=False)
    tunnel_error('no mtu', 'ipip', 4, (3, 4), rest=0, told=False, flags='DF')
    tunnel_error('mtu 88', 'ipip', 4, (3, 4), rest=88, new_rest=68, flags='DF')
    tunnel_error('mtu 87', 'ipip', 4, (3, 4), rest=87, told=False, flags='DF')
    for mtu, told in ((0, 1280), (1280, 1280), (1320, 1280), (1321, 1281), (0x10000, 0xffff - 40)):
        tunnel_error(f'mtu {mtu}', 'ipip', 6, (2, 0), rest=mtu, new_rest=told)


def main():
    for make in (errors_rewritten, quotes_of_all_sorts, what_weir_adds, not_followed,
                 packets_translated, headers_left_out, errors_translated, kinds_translated,
                 mtus_translated, tunnel_errors):
        make()
    return write_or_check('icmp_cases.json', json_lines(cases) + '\n')


if __name__ == '__main__':
    sys.exit(main())
