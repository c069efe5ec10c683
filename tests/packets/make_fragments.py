#!/usr/bin/python3 -B
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/packets/fragments.json: packets and their fragments, as scapy cuts them.

With --check it only says whether the file is what it would write. It holds

    "cuts":  {"name", "packet", "size", "id", "pieces"}, IP packets; `size` is the most bytes of a
             piece, `id` that of an IPv6 packet's pieces
    "paths": {"name", "services", "steps"}, frames through a director as in make_cases.py; a step is
             {"frames", "port", "outcome", "outs", "out_port", "free_id"}: "frames" in the order of
             arrival, "outs" in that of their offsets; "free_id" says that the sender chooses the
             id.
"""

import random
import sys

from scapy.all import (IP, IPOption, IPv6, UDP, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
                       IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN, Raw, fragment, fragment6)

from case_file import json_lines, write_or_check
from make_cases import (FORWARDED, SERVER, from_client, from_server, hop_later, inbound,
                        nat_to_client, nat_to_server, reply, service, to_client, to_server,
                        tunnelled)

ID = 0x4321
MIN_IPV6_MTU = 1280
# An option that fragments carry (router alert) and one that only the first one does (timestamp).
COPIED = bytes([0x94, 4, 0, 0])
NOT_COPIED = bytes([0x44, 8, 5, 0, 0, 0, 0, 0])
NO_OPERATION = bytes([1])

chance = random.Random(1)


def payload(length):
    return bytes(chance.randrange(256) for _ in range(length))


# ---- Cuts ----

def pieces_of(packet, size, ident=ID):
    """Fragments of at most `size` bytes of IP packet each."""
    if packet.name == 'IP':
        header = packet.ihl * 4
        pieces = [IP(bytes(piece)) for piece in fragment(packet, size - header)]
        for piece in pieces[1:]:
            without_uncopied_options(piece)
        return [bytes(IP(bytes(piece))) for piece in pieces]
    whole = packet.copy()
    above = unfragmentable_end(whole)
    rest, number = above.payload, above.nh
    above.remove_payload()
    above.add_payload(IPv6ExtHdrFragment(nh=number, id=ident) / rest)
    above.nh = 44
    del whole.plen
    return [bytes(piece) for piece in fragment6(whole, size)]


def unfragmentable_end(packet):
    """The last header that each fragment repeats (RFC 8200 section 4.5)."""
    layer, routed = packet, False
    while True:
        following = layer.payload
        if isinstance(following, IPv6ExtHdrRouting):
            routed = True
        elif isinstance(following, IPv6ExtHdrDestOpt):
            if routed:
                return layer
        elif not isinstance(following, IPv6ExtHdrHopByHop):
            return layer
        layer = following


def without_uncopied_options(piece):
    """Same length: RFC 791 section 3.2 lets the rest be padding."""
    piece.options = IPOption(bytes(piece)[20:piece.ihl * 4].replace(
        NOT_COPIED, NO_OPERATION * len(NOT_COPIED))) if piece.ihl > 5 else piece.options
    del piece.chksum


def cut(name, packet, size):
    packet = packet.__class__(bytes(packet))
    return {'name': name, 'packet': bytes(packet).hex(), 'size': size, 'id': ID,
            'pieces': [piece.hex() for piece in pieces_of(packet, size)]}


def cuts():
    def v4(length, options=b'', **fields):
        header = IP(src='10.1.0.1', dst='10.9.0.1', id=ID, **fields)
        if options:
            header.options = IPOption(options)
        return header / UDP(sport=4000, dport=53) / Raw(payload(length))

    def v6(length, *extensions, **fields):
        packet = IPv6(src='2001:db8:1::1', dst='2001:db8:9::1', **fields)
        for extension in extensions:
            packet = packet / extension
        return packet / UDP(sport=4000, dport=53) / Raw(payload(length))

    for length, size in ((100, 68), (100, 60), (500, 276), (1000, 576), (1001, 577), (1007, 583),
                         (300, 28), (548, 576 - 8), (16, 36), (17, 36), (15, 36)):
        yield cut(f'ipv4 {length} by {size}', v4(length), size)
    yield cut('ipv4 with DF', v4(400, flags='DF', tos=0xb9, ttl=7), 300)
    for name, options in (('copied', COPIED), ('not copied', NOT_COPIED),
                          ('both', COPIED + NOT_COPIED),
                          ('both, the other way', NOT_COPIED + COPIED)):
        yield cut(f'ipv4, options {name}', v4(300, options), 200)
    for length, size in ((2000, 1280), (2401, 1281), (2447, 1299), (1300, 1280), (1232 + 1, 1280),
                         (4000, 1500)):
        yield cut(f'ipv6 {length} by {size}', v6(length), size)
    hop_by_hop = IPv6ExtHdrHopByHop(options=[PadN(optdata=b'\0' * 4)])
    destination = IPv6ExtHdrDestOpt(options=[PadN(optdata=b'\0' * 12)])
    routing = IPv6ExtHdrRouting(addresses=['2001:db8::7'], segleft=0)
    yield cut('ipv6, hop-by-hop', v6(1500, hop_by_hop), 1300)
    yield cut('ipv6, hop-by-hop and routing', v6(1500, hop_by_hop, routing, tc=0xb9, fl=77),
              1300)
    yield cut('ipv6, routing, destination', v6(1500, routing, destination), 1300)
    yield cut('ipv6, destination, routing', v6(1500, destination, routing), 1300)


# ---- Paths ----

def arriving(packet, size, frame_of):
    frames = [frame_of(piece) for piece in pieces_of(packet, size)]
    chance.shuffle(frames)
    return frames


class Framed:
    """Bytes that make_cases.framed() takes for a packet."""

    def __init__(self, data):
        self.data = data
        self.name = 'IP' if data[0] >> 4 == 4 else 'IPv6'

    def __bytes__(self):
        return self.data


def leaving(packet, size, frame_of):
    least = size if packet.name == 'IP' else max(size, MIN_IPV6_MTU)
    return [frame_of(Framed(piece)) for piece in pieces_of(packet, least)]


def step(packet, out, size, outcome, reply_way=False, free_id=False):
    frame_of, out_of = (from_server, to_client) if reply_way else (from_client, to_server)
    frames = arriving(packet, size, lambda piece: frame_of(Framed(piece)))
    return {'frames': [frame.hex() for frame in frames], 'port': int(reply_way),
            'outcome': outcome, 'outs': [frame.hex() for frame in leaving(out, size, out_of)],
            'out_port': int(not reply_way), 'free_id': free_id or out.name == 'IPv6'}


def paths():
    for family, protocol in ((f, p) for f in (4, 6) for p in ('tcp', 'udp', 'sctp')):
        size, length = {4: (576, 1501), 6: (1400, 3001)}[family]
        fields = {'id': ID} if family == 4 else {}
        packet = inbound(family, protocol, payload(length), **fields)
        back = reply(family, protocol, payload(length), **fields)
        ways = [('nat', SERVER[family], nat_to_server(packet, family, protocol)),
                ('dr', SERVER[family], hop_later(packet)),
                ('tun', SERVER[4], tunnelled(packet, 4)), ('tun', SERVER[6], tunnelled(packet, 6))]
        for mode, server, out in ways:
            steps = [step(packet, out, size, FORWARDED[mode], free_id=mode == 'tun')]
            if mode == 'nat':
                steps.append(step(back, nat_to_client(back, family, protocol), size,
                                  'nat_to_client', reply_way=True))
            yield {'name': f'{mode} to {server}, ipv{family} {protocol}',
                   'services': [service(family, protocol, mode, server)], 'steps': steps}


def main():
    parts = [f'"{name}": {json_lines(make())}' for name, make in (('cuts', cuts), ('paths', paths))]
    return write_or_check('fragments.json', '{' + ',\n'.join(parts) + '}\n')


if __name__ == '__main__':
    sys.exit(main())
