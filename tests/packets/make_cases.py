#!/usr/bin/python3 -B
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/packets/cases.json: packets in, outcome and bytes out, as scapy has them.

With --check it only says whether the file is what it would write. A case is

    {"name", "lab": {"vlan", "mtu"}, "services": [...], "steps": [...]}
    service: {"protocol", "address", "port", "servers": [{"address", "port", "mode"}]}
             and of a tunnel that is not IPIP, in the server: "tunnel": "gue" or "gre",
             "tunnel_port", "tunnel_checksum": "none", "checksum" or "remote"
    step:    {"frame", "port", "outcome"} and, where something leaves, {"out", "out_port"};
             "free_id" is the offset of an IPv4 header whose id, and with it checksum, is the
             sender's choice; "free_udp_source" that of an IP header before a UDP header whose
             source port, and with it checksum, is.

The network is that of tests/support/burst_lab.h.
"""

import sys

from scapy.all import (ARP, ICMP, IP, IPOption_NOP, IPv6, TCP, UDP, Dot1Q, Ether, ICMPv6DestUnreach,
                       ICMPv6EchoRequest, ICMPv6PacketTooBig, ICMPv6TimeExceeded,
                       IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop,
                       IPv6ExtHdrRouting, Raw, GRE)
from scapy.layers.sctp import (SCTP, SCTPChunkAbort, SCTPChunkCookieEcho, SCTPChunkData,
                               SCTPChunkInit, SCTPChunkInitAck, SCTPChunkSACK)

from case_file import json_lines, write_or_check

CLIENT_MAC, CLIENT_SIDE_MAC = '02:00:00:00:0c:01', '02:00:00:00:0a:fe'
SERVER_MAC, SERVER_SIDE_MAC = '02:00:00:00:0d:01', '02:00:00:00:0b:fe'
CLIENT = {4: '10.1.0.1', 6: '2001:db8:1::1'}
UNROUTED = {4: '192.0.2.9', 6: '2001:db8:ffff::9'}
VIP = {4: '10.9.0.1', 6: '2001:db8:9::1'}
SERVER = {4: '10.2.0.1', 6: '2001:db8:2::1'}
SERVER_SIDE = {4: '10.2.0.254', 6: '2001:db8:2::254'}
NET = {4: IP, 6: IPv6}
TRANSPORT = {'tcp': TCP, 'udp': UDP, 'sctp': SCTP}  # scapy's TCP is a SYN unless told otherwise
CLIENT_PORT = 40001
GUE_PORT = 6080
SERVICE_PORT = {'tcp': 80, 'udp': 53, 'sctp': 3868}
SERVER_PORT = {'tcp': 8080, 'udp': 5353, 'sctp': 13868}
PAYLOAD = b'an odd number of bytes.'
ETHERNET = 14
TAG = 4
FORWARDED = {'nat': 'nat_to_server', 'dr': 'dr_to_server', 'tun': 'tun_to_server'}

cases = []


# ---- Packets: an IP layer and all above it ----

def is_ipv4(packet):
    return packet.name == 'IP'


def hops(packet):
    return 'ttl' if is_ipv4(packet) else 'hlim'


def fresh(packet):
    """The same packet with lengths and checksums as they belong."""
    return packet.__class__(bytes(packet))


def content(protocol, payload, first_chunk):
    """What follows the transport header; SCTP has an INIT or the like in front of the payload."""
    if protocol != 'sctp':
        return Raw(payload)
    return first_chunk() / SCTPChunkData(data=payload) if payload else first_chunk()


def inbound(family, protocol, payload=PAYLOAD, extension=(), transport_fields=None,
            chunk=SCTPChunkInit, **net_fields):
    """A client's packet to the service."""
    net = NET[family](**{'src': CLIENT[family], 'dst': VIP[family]} | net_fields)
    ends = {'sport': CLIENT_PORT, 'dport': SERVICE_PORT[protocol]} | (transport_fields or {})
    transport = TRANSPORT[protocol](**ends)
    for header in extension:
        net = net / header
    if extension and protocol == 'sctp':
        net.lastlayer().nh = 132
    return fresh(net / transport / content(protocol, payload, chunk))


def reply(family, protocol, payload=PAYLOAD, **fields):
    net = NET[family](src=SERVER[family], dst=CLIENT[family])
    for name, value in fields.items():
        setattr(net, name, value)
    transport = TRANSPORT[protocol](sport=SERVER_PORT[protocol], dport=CLIENT_PORT)
    if protocol == 'tcp':
        transport.flags = 'SA'
    return fresh(net / transport / content(protocol, payload, SCTPChunkInitAck))


def transport_number(protocol):
    return {'tcp': 6, 'udp': 17, 'sctp': 132}[protocol]


def hop_later(packet):
    packet = packet.copy()
    setattr(packet, hops(packet), getattr(packet, hops(packet)) - 1)
    if is_ipv4(packet):
        del packet.chksum
    return fresh(packet)


def transport_of(packet):
    return next(packet[layer] for layer in TRANSPORT.values() if layer in packet)


def translated(packet, **ends):
    """src, dst, sport, dport replaced, and the checksums with them."""
    packet = packet.copy()
    for name, value in ends.items():
        setattr(packet if name in ('src', 'dst') else transport_of(packet), name, value)
    if is_ipv4(packet):
        del packet.chksum
    del transport_of(packet).chksum
    return fresh(packet)


def nat_to_server(packet, family, protocol):
    return translated(hop_later(packet), dst=SERVER[family], dport=SERVER_PORT[protocol])


def nat_to_client(packet, family, protocol):
    return translated(hop_later(packet), src=VIP[family], sport=SERVICE_PORT[protocol])


def with_wrong_checksum(packet, by):
    packet = packet.copy()
    transport = transport_of(packet)
    # What is added to a sum, or to a CRC, is added to that of the changed packet, too.
    transport.chksum = (transport.chksum ^ by if SCTP in packet
                        else ones_complement(transport.chksum, by))
    return packet


def ones_complement(a, b):
    total = a + b
    return (total & 0xffff) + (total >> 16)


def tunnelled(packet, outer, tunnel='ipip', checksum='none'):
    inner = hop_later(packet)
    tos = inner.tos if is_ipv4(inner) else inner.tc
    tos = tos & ~3 | 2 if tos & 3 == 3 else tos
    ttl = getattr(inner, hops(inner))
    number = 4 if is_ipv4(inner) else 41
    if tunnel == 'gue':
        udp = UDP(sport=40000, dport=GUE_PORT, chksum=0 if checksum == 'none' else None)
        inner = udp / Raw(bytes([0, number, 0, 0]) + bytes(inner))
    if tunnel == 'gre':
        inner = GRE(chksum_present=int(checksum == 'checksum'),
                    proto=0x0800 if number == 4 else 0x86dd) / inner
    number = {'ipip': number, 'gue': 17, 'gre': 47}[tunnel]
    if outer == 6:
        return fresh(IPv6(src=SERVER_SIDE[6], dst=SERVER[6], tc=tos, hlim=ttl, nh=number) / inner)
    keep = is_ipv4(packet) and packet.flags.DF
    return fresh(IP(src=SERVER_SIDE[4], dst=SERVER[4], tos=tos, ttl=ttl, id=0,
                    flags='DF' if keep else 0, proto=number) / inner)


def icmp_error(packet, kind, source, mtu=0):
    """`kind` is time, port, route or big; quotes `packet` as it is."""
    quote = bytes(packet)
    if is_ipv4(packet):
        types = {'time': (11, 0), 'port': (3, 3), 'route': (3, 1), 'big': (3, 4)}
        head = ICMP(type=types[kind][0], code=types[kind][1])
        if mtu:
            head.nexthopmtu = mtu
        return fresh(IP(src=source, dst=packet.src, tos=0xc0, ttl=64) / head / Raw(quote[:548]))
    head = {'time': ICMPv6TimeExceeded(), 'port': ICMPv6DestUnreach(code=4),
            'route': ICMPv6DestUnreach(code=0), 'big': ICMPv6PacketTooBig(mtu=mtu)}[kind]
    return fresh(IPv6(src=source, dst=packet.src, hlim=64) / head / Raw(quote[:1232]))


# ---- Frames ----

def framed(packet, destination, source, vlan=0, priority=0, kind=None):
    kind = kind or (0x0800 if is_ipv4(packet) else 0x86dd)
    if vlan or priority:
        return bytes(Ether(dst=destination, src=source) /
                     Dot1Q(vlan=vlan, prio=priority, type=kind)) + bytes(packet)
    return bytes(Ether(dst=destination, src=source, type=kind)) + bytes(packet)


def from_client(packet, **tag):
    return framed(packet, CLIENT_SIDE_MAC, CLIENT_MAC, **tag)


def from_server(packet, **tag):
    return framed(packet, SERVER_SIDE_MAC, SERVER_MAC, **tag)


def to_server(packet, **tag):
    return framed(packet, SERVER_MAC, SERVER_SIDE_MAC, **tag)


def to_client(packet, **tag):
    return framed(packet, CLIENT_MAC, CLIENT_SIDE_MAC, **tag)


# ---- Cases ----

def service(family, protocol, mode=None, server=None, port=None, vip=None, tunnel='ipip',
            checksum='none'):
    """Without a mode: a service without real servers."""
    entry = {'protocol': protocol, 'address': vip or VIP[family],
             'port': port or SERVICE_PORT[protocol], 'servers': []}
    if mode:
        entry['servers'].append({'address': server or SERVER[family],
                                 'port': SERVER_PORT[protocol], 'mode': mode})
    if tunnel != 'ipip':
        entry['servers'][0] |= {'tunnel': tunnel, 'tunnel_checksum': checksum,
                                'tunnel_port': GUE_PORT if tunnel == 'gue' else 0}
    return entry


def step(frame, outcome, out=None, port=0, out_port=None, free_id=None):
    entry = {'frame': bytes(frame).hex(), 'port': port, 'outcome': outcome}
    if out is not None:
        entry['out'] = bytes(out).hex()
        entry['out_port'] = out_port
    if free_id is not None:
        entry['free_id'] = free_id
    return entry


def sent_to_server(frame, mode, packet, free_id=None, **tag):
    return step(frame, FORWARDED[mode], to_server(packet, **tag), out_port=1, free_id=free_id)


def sent_to_client(frame, packet, **tag):
    return step(frame, 'nat_to_client', to_client(packet), port=1, out_port=0, **tag)


def refused(frame, error, port=0):
    """The sender gets an ICMP error; the id of an IPv4 one is free."""
    free_id = ETHERNET if is_ipv4(error) else None
    out = to_client(error) if port == 0 else to_server(error)
    return step(frame, 'icmp_error_sent', out, port=port, out_port=port, free_id=free_id)


def case(name, services, *steps, **lab):
    cases.append({'name': name, 'lab': lab, 'services': services, 'steps': list(steps)})


FAMILIES = (4, 6)
PROTOCOLS = ('tcp', 'udp', 'sctp')


def each():
    return [(family, protocol) for family in FAMILIES for protocol in PROTOCOLS]


def modes():
    for family, protocol in each():
        packet = inbound(family, protocol)
        back = reply(family, protocol)
        case(f'nat ipv{family} {protocol}', [service(family, protocol, 'nat')],
             sent_to_server(from_client(packet), 'nat', nat_to_server(packet, family, protocol)),
             sent_to_client(from_server(back), nat_to_client(back, family, protocol)))
        case(f'dr ipv{family} {protocol}', [service(family, protocol, 'dr')],
             sent_to_server(from_client(packet), 'dr', hop_later(packet)))
        for outer in FAMILIES:
            case(f'tun ipv{family} in ipv{outer} {protocol}',
                 [service(family, protocol, 'tun', SERVER[outer])],
                 sent_to_server(from_client(packet), 'tun', tunnelled(packet, outer),
                                ETHERNET if outer == 4 else None))
    case('a packet without payload', [service(4, 'udp', 'nat')],
         sent_to_server(from_client(inbound(4, 'udp', b'')), 'nat',
                        nat_to_server(inbound(4, 'udp', b''), 4, 'udp')))


def tunnel_headers():
    for outer in FAMILIES:
        for tos in (0xb8, 0x01, 0x02, 0x03, 0xbb):
            v4 = inbound(4, 'udp', tos=tos)
            case(f'tun copies tos {tos:#04x} of ipv4 to ipv{outer}',
                 [service(4, 'udp', 'tun', SERVER[outer])],
                 sent_to_server(from_client(v4), 'tun', tunnelled(v4, outer),
                                ETHERNET if outer == 4 else None))
            v6 = inbound(6, 'udp', tc=tos, fl=0x12345)
            case(f'tun copies class {tos:#04x} of ipv6 to ipv{outer}',
                 [service(6, 'udp', 'tun', SERVER[outer])],
                 sent_to_server(from_client(v6), 'tun', tunnelled(v6, outer),
                                ETHERNET if outer == 4 else None))
    packet = inbound(4, 'udp', flags='DF')
    case('tun copies DF, id 0', [service(4, 'udp', 'tun')],
         sent_to_server(from_client(packet), 'tun', tunnelled(packet, 4)))


TUNNELS = (('gue', 'none', 12), ('gue', 'checksum', 12), ('gue', 'remote', 12),
           ('gre', 'none', 4), ('gre', 'checksum', 8))


def tunnel_types():
    for tunnel, checksum, more in TUNNELS:
        for family, outer in ((f, o) for f in FAMILIES for o in FAMILIES):
            name = f'{tunnel} {checksum} ipv{family} in ipv{outer}'
            header = 20 if outer == 4 else 40
            shape = {'tunnel': tunnel, 'checksum': checksum}

            def through(packet, protocol):
                entry = sent_to_server(from_client(packet), 'tun',
                                       tunnelled(packet, outer, **shape),
                                       ETHERNET if outer == 4 else None)
                if tunnel == 'gue':
                    entry['free_udp_source'] = ETHERNET
                return [service(family, protocol, 'tun', SERVER[outer], **shape)], entry

            for protocol in PROTOCOLS:
                case(f'{name} {protocol}', *through(inbound(family, protocol), protocol))
            even = inbound(family, 'udp', PAYLOAD + b'.')
            case(f'{name}: an even number of bytes', *through(even, 'udp'))
            room = 1500 - header - more
            keep = {'flags': 'DF'} if family == 4 else {}
            empty = len(bytes(inbound(family, 'udp', b'')))
            fits, big = (inbound(family, 'udp', b'a' * (room - empty + over), **keep)
                         for over in (0, 1))
            services, entry = through(fits, 'udp')
            if keep:
                entry.pop('free_id', None)
            case(f'{name}: as big as the mtu allows', services, entry)
            case(f'{name}: bigger than the mtu allows', services,
                 refused(from_client(big),
                         icmp_error(hop_later(big), 'big', VIP[family], room)))


def tags_and_padding():
    for family, protocol in each():
        packet = inbound(family, protocol, b'x')
        out = nat_to_server(packet, family, protocol)
        services = [service(family, protocol, 'nat')]
        name = f'ipv{family} {protocol}'
        case(f'tagged in, {name}', services,
             sent_to_server(from_client(packet, vlan=7, priority=5), 'nat', out))
        case(f'tagged out, {name}', services,
             sent_to_server(from_client(packet), 'nat', out, vlan=9), vlan=9)
        case(f'tagged in and out, {name}', services,
             sent_to_server(from_client(packet, vlan=7), 'nat', out, vlan=9), vlan=9)
        case(f'padding is not forwarded, {name}', services,
             sent_to_server(from_client(packet) + b'padding', 'nat', out))
        case(f'padding is not tunnelled, {name}', [service(family, protocol, 'tun')],
             sent_to_server(from_client(packet) + b'padding', 'tun', tunnelled(packet, family),
                            ETHERNET if family == 4 else None))
    packet = inbound(4, 'tcp')
    case('tagged for its priority only', [service(4, 'tcp', 'nat')],
         sent_to_server(from_client(packet, priority=6), 'nat', nat_to_server(packet, 4, 'tcp')))
    case('a tagged frame of another protocol', [service(4, 'tcp', 'nat')],
         step(Ether(dst=CLIENT_SIDE_MAC, src=CLIENT_MAC) / Dot1Q(vlan=7, type=0x88f7) / b'ptp',
              'kernel_not_ip'))
    case('a tagged frame of a vlan that the host is not in', [service(4, 'tcp', 'nat')],
         step(from_client(packet, vlan=8), 'kernel_foreign_vlan'))


def headers_with_options():
    options = [IPOption_NOP()] * 4
    for mode in ('nat', 'dr'):
        packet = inbound(4, 'udp', options=options)
        out = nat_to_server(packet, 4, 'udp') if mode == 'nat' else hop_later(packet)
        case(f'{mode}: ipv4 options', [service(4, 'udp', mode)],
             sent_to_server(from_client(packet), mode, out))
    packet = inbound(4, 'tcp', transport_fields={'options': [('MSS', 1460), ('WScale', 7)]})
    case('tcp options', [service(4, 'tcp', 'nat')],
         sent_to_server(from_client(packet), 'nat', nat_to_server(packet, 4, 'tcp')))
    hop_by_hop, destination = IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()
    routing = IPv6ExtHdrRouting(segleft=0)
    for chain in ([hop_by_hop], [destination], [routing], [hop_by_hop, routing, destination],
                  [destination] * 8):
        for protocol in PROTOCOLS:
            packet = inbound(6, protocol, extension=chain)
            names = '+'.join(header.name.split()[-1] for header in chain)
            for mode in ('nat', 'tun'):
                out = nat_to_server(packet, 6, protocol) if mode == 'nat' else tunnelled(packet, 6)
                case(f'{mode}: ipv6 extension headers {len(chain)} {names} {protocol}',
                     [service(6, protocol, mode)],
                     sent_to_server(from_client(packet), mode, out))
    case('ipv6: nine extension headers', [service(6, 'tcp', 'nat')],
         step(from_client(inbound(6, 'tcp', extension=[destination] * 9)),
              'drop_too_many_extension_headers'))
    beyond = bytearray(from_client(inbound(6, 'tcp', extension=[hop_by_hop])))
    beyond[ETHERNET + 40 + 1] = 20
    case('ipv6: an extension header beyond the packet', [service(6, 'tcp', 'nat')],
         step(beyond, 'drop_truncated'))
    case('ipv6: no next header', [service(6, 'tcp', 'nat')],
         step(from_client(IPv6(src=CLIENT[6], dst=VIP[6], nh=59)), 'kernel_not_a_service'))


def checksums():
    for family, protocol in each():
        services = [service(family, protocol, 'nat')]
        packet, back = inbound(family, protocol), reply(family, protocol)
        out = nat_to_server(packet, family, protocol)
        out_back = nat_to_client(back, family, protocol)
        case(f'a wrong checksum stays wrong, ipv{family} {protocol}', services,
             sent_to_server(from_client(with_wrong_checksum(packet, 0x1111)), 'nat',
                            with_wrong_checksum(out, 0x1111)),
             sent_to_client(from_server(with_wrong_checksum(back, 0x2222)),
                            with_wrong_checksum(out_back, 0x2222)))
    for family in FAMILIES:
        none, none_back = inbound(family, 'udp'), reply(family, 'udp')
        none[UDP].chksum = none_back[UDP].chksum = 0
        case(f'nat computes a udp checksum where there is none, ipv{family}',
             [service(family, 'udp', 'nat')],
             sent_to_server(from_client(none), 'nat', nat_to_server(none, family, 'udp')),
             sent_to_client(from_server(none_back), nat_to_client(none_back, family, 'udp')))
        case(f'dr leaves a udp packet without checksum, ipv{family}',
             [service(family, 'udp', 'dr')],
             sent_to_server(from_client(none), 'dr', hop_later(none)))
        # Two bytes of payload that bring the sum to zero, which is written as ffff.
        trial = nat_to_server(inbound(family, 'udp', b'\0\0'), family, 'udp')
        packet = inbound(family, 'udp', trial[UDP].chksum.to_bytes(2, 'big'))
        out = nat_to_server(packet, family, 'udp')
        assert out[UDP].chksum == 0xffff
        case(f'a udp checksum of zero is written as ffff, ipv{family}',
             [service(family, 'udp', 'nat')], sent_to_server(from_client(packet), 'nat', out))


def hop_limits():
    for family, protocol in each():
        field = 'ttl' if family == 4 else 'hlim'
        name = f'ipv{family} {protocol}'
        for mode in FORWARDED:
            services = [service(family, protocol, mode)]
            for value in (0, 1):
                packet = inbound(family, protocol, **{field: value})
                case(f'{mode}: {field} {value}, {name}', services,
                     refused(from_client(packet), icmp_error(packet, 'time', VIP[family])))
        services = [service(family, protocol, 'nat')]
        for value in (2, 255):
            packet = inbound(family, protocol, **{field: value})
            out = nat_to_server(packet, family, protocol)
            case(f'nat: {field} {value}, {name}', services,
                 sent_to_server(from_client(packet), 'nat', out))
        packet, back = inbound(family, protocol), reply(family, protocol, **{field: 1})
        case(f'reply: {field} 1, {name}', services,
             sent_to_server(from_client(packet), 'nat', nat_to_server(packet, family, protocol)),
             refused(from_server(back), icmp_error(back, 'time', SERVER_SIDE[family]), port=1))
        unrouted = inbound(family, protocol, src=UNROUTED[family], **{field: 1})
        case(f'{field} 1 from a client without route, {name}', services,
             step(from_client(unrouted), 'drop_ttl_expired_unanswered'))
        nobody = inbound(family, protocol, src='0.0.0.0' if family == 4 else '::', **{field: 1})
        case(f'{field} 1 from nobody, {name}', services,
             step(from_client(nobody), 'drop_martian_source'))


def sizes():
    udp_header = 8
    for family in FAMILIES:
        net_header = 20 if family == 4 else 40
        room = 1500 - net_header - udp_header
        keep = {'flags': 'DF'} if family == 4 else {}
        fits, big = (inbound(family, 'udp', b'a' * (room + more), **keep) for more in (0, 1))
        for mode in ('nat', 'dr'):
            services = [service(family, 'udp', mode)]
            out = nat_to_server(fits, family, 'udp') if mode == 'nat' else hop_later(fits)
            case(f'{mode}: as big as the mtu, ipv{family}', services,
                 sent_to_server(from_client(fits), mode, out))
            case(f'{mode}: bigger than the mtu, ipv{family}', services,
                 refused(from_client(big), icmp_error(hop_later(big), 'big', VIP[family], 1500)))
            case(f'{mode}: bigger than a smaller mtu, ipv{family}', services,
                 refused(from_client(fits), icmp_error(hop_later(fits), 'big', VIP[family], 1400)),
                 mtu=1400)
        for outer, overhead in ((4, 20), (6, 40)):
            services = [service(family, 'udp', 'tun', SERVER[outer])]
            packet = inbound(family, 'udp', b'a' * (room - overhead))
            case(f'tun: as big as the mtu allows, ipv{family} in ipv{outer}', services,
                 sent_to_server(from_client(packet), 'tun', tunnelled(packet, outer),
                                ETHERNET if outer == 4 else None))
            case(f'tun: bigger than the mtu allows, ipv{family} in ipv{outer}', services,
                 refused(from_client(fits), icmp_error(hop_later(fits), 'big', VIP[family],
                                                       1500 - overhead)))
    case('bigger than the mtu, and no way back to the sender', [service(4, 'udp', 'dr')],
         step(from_client(inbound(4, 'udp', b'a' * 1473, flags='DF', src=UNROUTED[4])),
              'drop_too_big'))


def nobody_there():
    for family, protocol in each():
        name = f'ipv{family} {protocol}'
        packet = inbound(family, protocol)
        case(f'a service without real servers, {name}', [service(family, protocol)],
             refused(from_client(packet), icmp_error(packet, 'port', VIP[family])))
        case(f'a service without real servers, no route to the client, {name}',
             [service(family, protocol)],
             step(from_client(inbound(family, protocol, src=UNROUTED[family])),
                  'drop_no_server_unanswered'))
        case(f'a real server without route, {name}',
             [service(family, protocol, 'nat', UNROUTED[family])],
             refused(from_client(packet), icmp_error(packet, 'route', VIP[family])))
        case(f'a real server whose neighbour is unknown, {name}',
             [service(family, protocol, 'nat',
                      '10.2.0.200' if family == 4 else '2001:db8:2::200')],
             step(from_client(packet), 'waiting_for_neighbour'))
        opener = inbound(family, protocol, src=UNROUTED[family])
        back = reply(family, protocol, dst=UNROUTED[family])
        case(f'a reply to a client without route, {name}', [service(family, protocol, 'nat')],
             sent_to_server(from_client(opener), 'nat', nat_to_server(opener, family, protocol)),
             step(from_server(back), 'drop_no_route', port=1))
        if protocol == 'udp':
            continue  # the first one gives way (admission_test)
        twins = [service(family, protocol, 'nat'), service(family, protocol, 'nat', port=99)]
        case(f'two services, one real server, one client port, {name}', twins,
             sent_to_server(from_client(packet), 'nat', nat_to_server(packet, family, protocol)),
             step(from_client(inbound(family, protocol,
                                      transport_fields={'dport': 99})), 'drop_reply_ambiguous'))


def left_to_the_kernel():
    for family, protocol in each():
        name = f'ipv{family} {protocol}'
        services = [service(family, protocol, 'nat')]
        packet, back = inbound(family, protocol), reply(family, protocol)
        case(f'another port, {name}', services,
             step(from_client(inbound(family, protocol, transport_fields={'dport': 81})),
                  'kernel_not_a_service'))
        elsewhere = '10.9.0.77' if family == 4 else '2001:db8:9::77'
        case(f'a vip that is not this host\'s, {name}',
             [service(family, protocol, 'nat', vip=elsewhere)],
             step(from_client(inbound(family, protocol, dst=elsewhere)), 'kernel_not_a_service'))
        case(f'a real server\'s packet of no connection, {name}', services,
             step(from_server(back), 'kernel_reply_unmatched', port=1))
        case(f'a dr server\'s packet, {name}', [service(family, protocol, 'dr')],
             step(from_server(back), 'kernel_not_a_service', port=1))
        case(f'a foreign mac, {name}', services,
             step(framed(packet, '02:00:00:00:0a:ff', CLIENT_MAC), 'drop_foreign_mac'))
        case(f'the mac of the other port, {name}', services,
             step(framed(packet, SERVER_SIDE_MAC, CLIENT_MAC), 'drop_foreign_mac'))
        for mac in ('ff:ff:ff:ff:ff:ff', '33:33:00:00:00:01', '01:00:5e:00:00:01'):
            case(f'to {mac}, {name}', services,
                 step(framed(packet, mac, CLIENT_MAC), 'kernel_multicast'))
    for flags in ('A', 'FA', 'R', 'RA', 'SR', ''):
        for family in FAMILIES:
            case(f'tcp {flags or "without flags"} of no connection, ipv{family}',
                 [service(family, 'tcp', 'nat')],
                 step(from_client(inbound(family, 'tcp', transport_fields={'flags': flags})),
                      'kernel_no_connection'))
    for chunk in (SCTPChunkData, SCTPChunkCookieEcho, SCTPChunkSACK, SCTPChunkAbort,
                  SCTPChunkInitAck):
        for family in FAMILIES:
            case(f'sctp {chunk.__name__[9:]} of no connection, ipv{family}',
                 [service(family, 'sctp', 'nat')],
                 step(from_client(inbound(family, 'sctp', b'', chunk=chunk)),
                      'kernel_no_connection'))
    case('a tcp syn from the ftp data port', [service(4, 'tcp', 'nat')],
         step(from_client(inbound(4, 'tcp', transport_fields={'sport': 20})),
              'kernel_no_connection'))
    services = [service(4, 'tcp', 'nat'), service(6, 'tcp', 'nat')]
    case('arp', services, step(Ether(dst=CLIENT_SIDE_MAC, src=CLIENT_MAC) / ARP(), 'kernel_not_ip'))
    case('icmp echo', services,
         step(from_client(fresh(IP(src=CLIENT[4], dst=VIP[4]) / ICMP())), 'kernel_icmp'))
    case('icmpv6 echo', services,
         step(from_client(fresh(IPv6(src=CLIENT[6], dst=VIP[6]) / ICMPv6EchoRequest())),
              'kernel_icmp'))
    case('another protocol', services,
         step(from_client(fresh(IP(src=CLIENT[4], dst=VIP[4], proto=89) / Raw(b'hello'))),
              'kernel_not_a_service'))


def fragments():
    # Of which the transport's header makes a multiple of 8 bytes.
    payloads = {'tcp': b'a' * 20, 'udp': b'a' * 24, 'sctp': b'a' * 24}
    for protocol in PROTOCOLS:
        payload = payloads[protocol]
        services = [service(4, protocol, 'nat'), service(6, protocol, 'nat')]

        def v4(packet, **fields):
            for name, value in fields.items():
                setattr(packet, name, value)
            del packet.chksum
            return fresh(packet)

        for name, fields in (('first', {'flags': 'MF'}), ('middle', {'flags': 'MF', 'frag': 3}),
                             ('last', {'frag': 3})):
            case(f'{name} fragment, ipv4 {protocol}', services,
                 step(from_client(v4(inbound(4, protocol, payload), **fields)), 'fragment_kept'))
            case(f'{name} fragment of a real server, ipv4 {protocol}', services,
                 step(from_server(v4(reply(4, protocol, payload), **fields)), 'fragment_kept',
                      port=1))
            case(f'{name} fragment to another address, ipv4 {protocol}', services,
                 step(from_client(v4(inbound(4, protocol), dst='10.8.0.254', **fields)),
                      'kernel_not_a_service'))
            case(f'{name} fragment of a ping, ipv4 {protocol}', services,
                 step(from_client(v4(inbound(4, protocol), proto=1, **fields)),
                      'kernel_not_a_service'))
        for name, outcome, fields in (('an odd length', 'drop_fragment_malformed', {'flags': 'MF'}),
                                      ('beyond all', 'drop_fragment_too_big', {'frag': 8190})):
            case(f'fragment, {name}, ipv4 {protocol}', services,
                 step(from_client(v4(inbound(4, protocol, b'a' * 19), **fields)), outcome))
        cut_header = IP(src=CLIENT[4], dst=VIP[4], proto=transport_number(protocol), frag=3)
        case(f'fragment without payload, ipv4 {protocol}', services,
             step(from_client(fresh(cut_header)), 'drop_fragment_tiny'))
        whole = inbound(6, protocol, payload, extension=[IPv6ExtHdrFragment(id=7)])
        case(f'a fragment that is the whole packet, ipv6 {protocol}', services,
             sent_to_server(from_client(whole), 'nat', nat_to_server(whole, 6, protocol)))
        for offset, more in ((0, 1), (3, 1), (3, 0)):
            chain = [IPv6ExtHdrFragment(offset=offset, m=more, id=7)]
            name = f'fragment {offset} {more}, ipv6 {protocol}'
            case(name, services, step(from_client(inbound(6, protocol, payload, extension=chain)),
                                      'fragment_kept'))
            case(f'{name}, to another address', services,
                 step(from_client(inbound(6, protocol, extension=chain, dst='2001:db8:8::fe')),
                      'kernel_not_a_service'))


def malformed():
    def spoiled(packet, at, *values, fix=True):
        """`values` from byte `at` on; the IPv4 checksum put right unless not `fix`."""
        raw = bytearray(bytes(packet))
        raw[at:at + len(values)] = values
        if fix and is_ipv4(packet):
            header = IP(bytes(raw[:20]))
            del header.chksum
            raw[10:12] = bytes(header)[10:12]
        return from_client(Raw(bytes(raw)), kind=0x0800 if is_ipv4(packet) else 0x86dd)

    for protocol in PROTOCOLS:
        services = [service(4, protocol, 'nat'), service(6, protocol, 'nat')]
        v4, v6 = inbound(4, protocol), inbound(6, protocol)
        length = len(bytes(v4))
        for name, outcome, frame in (
                ('ipv4: longer than the frame', 'drop_bad_length', spoiled(v4, 2, 0, length + 1)),
                ('ipv4: shorter than its header', 'drop_bad_length', spoiled(v4, 2, 0, 19)),
                ('ipv4: version 5', 'drop_bad_ipv4_header', spoiled(v4, 0, 0x55, fix=False)),
                ('ipv4: a header of 16 bytes', 'drop_bad_ipv4_header',
                 spoiled(v4, 0, 0x44, fix=False)),
                ('ipv4: a wrong header checksum', 'drop_bad_ipv4_checksum',
                 spoiled(v4, 10, 0xab, 0xcd, fix=False)),
                ('ipv4: no room for the ports', 'drop_truncated', spoiled(v4, 2, 0, 27)),
                ('ipv6: longer than the frame', 'drop_bad_length', spoiled(v6, 4, 1, 0)),
                ('ipv6: version 7', 'drop_bad_ipv6_header', spoiled(v6, 0, 0x70)),
                ('ipv6: no room for the ports', 'drop_truncated', spoiled(v6, 4, 0, 7))):
            case(f'{name}, {protocol}', services, step(frame, outcome))
    for family, header in ((4, 20), (6, 40)):
        services = [service(family, 'udp', 'nat'), service(family, 'tcp', 'nat')]
        udp, tcp = inbound(family, 'udp'), inbound(family, 'tcp')
        for name, frame in (('udp: shorter than its header', spoiled(udp, header + 4, 0, 7)),
                            ('udp: longer than the packet',
                             spoiled(udp, header + 4, 0, 9 + len(PAYLOAD))),
                            ('tcp: a header of 16 bytes', spoiled(tcp, header + 12, 0x40)),
                            ('tcp: a header beyond the packet', spoiled(tcp, header + 12, 0xf0))):
            case(f'{name}, ipv{family}', services, step(frame, 'drop_bad_length'))
        for chunk in (b'', b'\1\0\0'):
            ports = SCTP(sport=CLIENT_PORT, dport=SERVICE_PORT['sctp'])
            packet = NET[family](src=CLIENT[family], dst=VIP[family]) / ports / Raw(chunk)
            case(f'sctp: {len(chunk)} bytes of a chunk, ipv{family}',
                 [service(family, 'sctp', 'nat')],
                 step(from_client(fresh(packet)), 'drop_truncated'))


def main():
    for make in (modes, tunnel_headers, tunnel_types, tags_and_padding, headers_with_options,
                 checksums, hop_limits, sizes, nobody_there, left_to_the_kernel, fragments,
                 malformed):
        make()
    return write_or_check('cases.json', json_lines(cases) + '\n')


if __name__ == '__main__':
    sys.exit(main())
