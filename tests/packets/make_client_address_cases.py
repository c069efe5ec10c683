#!/usr/bin/python3 -B
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/packets/client_address.json: packets before and after TOA or a PROXY header is
put in, as scapy has them. With --check it only says whether the file is what it would write.

A case is one connection, its packets in order:

    {"name", "how", "protocol", "client", "service": [address, port], "mtu", "steps": [...]}
    step: {"to", "in"} and "out" (IP packets) or "outcome", where it does not go on
"""

import socket
import struct
import sys

from scapy.all import IP, TCP, UDP, IPOption_NOP, IPv6, IPv6ExtHdrDestOpt, Raw

from case_file import json_lines, write_or_check

ENDS = {4: (('10.1.0.1', 40001), ('10.9.0.1', 80)),
        6: (('2001:db8:1::1', 40001), ('2001:db8:9::1', 80))}
OTHER_SIDE = {4: ('10.3.0.1', '10.2.0.1'), 6: ('2001:db8:3::1', '2001:db8:2::1')}
NET = {4: IP, 6: IPv6}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
HEADER = {4: 28, 6: 52}
ISN, SERVER_ISN = 0xffffffd0, 7000  # the client's numbers wrap behind its first bytes
FIRST = ISN + 1
SYN_OPTIONS = [('MSS', 1460), ('SAckOK', b''), ('Timestamp', (1, 0)), ('NOP', None), ('WScale', 7)]
ACK_OPTIONS = [('NOP', None), ('NOP', None), ('Timestamp', (2, 1))]
TOA = 254

cases = []


# ---- What is put in ----

def proxy_header(family, protocol):
    """haproxy's proxy-protocol.txt, section 2.2."""
    (client, client_port), (service, service_port) = ENDS[family]
    kind = (0x10 if family == 4 else 0x20) | (1 if protocol == 'tcp' else 2)
    body = b''.join(socket.inet_pton(FAMILY[family], address) for address in (client, service))
    body += struct.pack('!HH', client_port, service_port)
    return b'\r\n\r\n\0\r\nQUIT\n' + bytes([0x21, kind]) + struct.pack('!H', len(body)) + body


def toa(family, client=None, port=None):
    port = port or ENDS[family][0][1]
    address = socket.inet_pton(FAMILY[family], client or ENDS[family][0][0])
    return (TOA, struct.pack('!H', port) + address)


# ---- Packets ----

def packet(net, transport, payload, towards, extension=()):
    """`net` is the family that the packet itself is of."""
    client, server = OTHER_SIDE[net]
    source, destination = (client, server) if towards == 'server' else (server, client)
    layers = NET[net](src=source, dst=destination)
    for layer in extension:
        if net == 4:
            layers.options = [layer]
        else:
            layers = layers / layer
    return bytes(layers / transport / Raw(payload))


def to_server(net, flags, seq, payload=b'', ack=SERVER_ISN + 1, options=(), extension=(), **fields):
    tcp = TCP(sport=5000, dport=8080, flags=flags, seq=seq & 0xffffffff,
              ack=0 if flags in ('S', 'R') else ack, options=list(options), **fields)
    return packet(net, tcp, payload, 'server', extension)


def to_client(net, flags, ack, payload=b'', seq=SERVER_ISN + 1, options=(), **fields):
    tcp = TCP(sport=8080, dport=5000, flags=flags, seq=seq, ack=ack & 0xffffffff,
              options=list(options), **fields)
    return packet(net, tcp, payload, 'client')


def datagram(net, payload, towards='server', checksum=None, extension=()):
    udp = UDP(sport=5000, dport=5353)
    if checksum is not None:
        udp.chksum = checksum
    return packet(net, udp, payload, towards, extension)


class Connection:
    def __init__(self, name, how, family, protocol='tcp', mtu=1500):
        self.case = {'name': name, 'how': how, 'protocol': protocol,
                     'client': list(ENDS[family][0]), 'service': list(ENDS[family][1]), 'mtu': mtu,
                     'steps': []}
        cases.append(self.case)

    def step(self, towards, before, after=None, outcome=None):
        step = {'to': towards, 'in': before.hex()}
        if outcome:
            step['outcome'] = outcome
        else:
            step['out'] = (before if after is None else after).hex()
        self.case['steps'].append(step)

    def server(self, before, after=None, outcome=None):
        self.step('server', before, after, outcome)

    def client(self, before, after=None, outcome=None):
        self.step('client', before, after, outcome)


# ---- TOA ----

def toa_cases(family, net):
    """`family` is the client's, `net` the real server's."""
    name = f'toa {family} over {net}: '
    option = toa(family)
    length = len(option[1]) + 2

    def with_toa(flags, seq, payload=b'', options=(), **fields):
        return to_server(net, flags, seq, payload, options=[option, *options], **fields)

    c = Connection(name + 'handshake and data', 'toa', family)
    c.server(to_server(net, 'S', ISN, options=SYN_OPTIONS), with_toa('S', ISN, options=SYN_OPTIONS))
    c.client(to_client(net, 'SA', FIRST, seq=SERVER_ISN, options=SYN_OPTIONS))
    c.server(to_server(net, 'A', FIRST, options=ACK_OPTIONS),
             with_toa('A', FIRST, options=ACK_OPTIONS))
    c.server(to_server(net, 'PA', FIRST, b'odd'), with_toa('PA', FIRST, b'odd'))
    c.server(to_server(net, 'R', FIRST))
    c.client(to_client(net, 'A', FIRST))
    c.server(to_server(net, 'A', FIRST), with_toa('A', FIRST))
    c.client(to_client(net, 'A', FIRST + 3))
    c.server(to_server(net, 'A', FIRST + 3))
    # The same ends once more, on a server that has forgotten the connection.
    c.client(to_client(net, 'SA', FIRST + 9999, seq=SERVER_ISN, options=SYN_OPTIONS))
    c.client(to_client(net, 'A', FIRST + 9999))
    c.server(to_server(net, 'A', FIRST + 9999), with_toa('A', FIRST + 9999))
    c.client(to_client(net, 'PA', FIRST + 9999, b'banner'))
    c.server(to_server(net, 'A', FIRST + 9999))

    c = Connection(name + 'a FIN of the server shows that it has been told', 'toa', family)
    c.server(to_server(net, 'S', ISN), with_toa('S', ISN))
    c.client(to_client(net, 'FA', FIRST))
    c.server(to_server(net, 'A', FIRST))

    c = Connection(name + 'a forged option is overwritten', 'toa', family)
    forged = toa(family, ENDS[family][1][0], 6)
    c.server(to_server(net, 'S', ISN, options=[('MSS', 1460), forged]),
             to_server(net, 'S', ISN, options=[('MSS', 1460), option]))
    short = (TOA, b'\1\2\3\4')
    nothing = ('NOP', None)
    c.server(to_server(net, 'A', FIRST, options=[short, nothing, nothing]),
             with_toa('A', FIRST, options=[nothing] * 8))
    odd = [nothing, (TOA, b'xyz'), short]
    blanks = [nothing] * (1 + 5 + 6)
    c.server(to_server(net, 'A', FIRST, options=odd), with_toa('A', FIRST, options=blanks))
    # The first of the right length is taken, whatever comes before and after.
    if length == 8:
        c.server(to_server(net, 'A', FIRST, options=[*odd, forged, forged]),
                 to_server(net, 'A', FIRST, options=[*blanks, option, *[nothing] * 8]))

    c = Connection(name + 'no room among the options', 'toa', family)
    full = [(253, b'x' * (40 - length - 2 + 4))]
    c.server(to_server(net, 'S', ISN, options=full))
    fits = [(253, b'x' * (40 - length - 2))]
    c.server(to_server(net, 'S', ISN, options=fits), with_toa('S', ISN, options=fits))
    # Nor for the real one, where the forged one takes it up.
    wrong = (TOA, b'y' * 36)
    c.server(to_server(net, 'S', ISN, options=[wrong, nothing, nothing]),
             to_server(net, 'S', ISN, options=[nothing] * 40))

    data = b'd' * 400
    size = len(with_toa('A', FIRST, data))
    c = Connection(name + 'no room in the MTU', 'toa', family, mtu=size - 1)
    c.server(to_server(net, 'S', ISN), with_toa('S', ISN))
    c.server(to_server(net, 'A', FIRST, data))
    c.server(to_server(net, 'A', FIRST, data[:-1]), with_toa('A', FIRST, data[:-1]))


# ---- PROXY over TCP ----

def sack(*blocks):
    return ('SAck', tuple(edge & 0xffffffff for block in blocks for edge in block))


def proxy_tcp_cases(family, net):
    name = f'proxy {family} over {net}: '
    header = proxy_header(family, 'tcp')
    length = len(header)
    assert length == HEADER[family]
    window = 1000

    def largest_mss(mtu):
        return max(mtu - (40 if net == 4 else 60) - length, 0)

    def opened(what, mtu=1500):
        c = Connection(name + what, 'proxy', family, mtu=mtu)
        c.server(to_server(net, 'S', ISN, options=SYN_OPTIONS))
        scale, mss = ('WScale', 3), min(1200, largest_mss(mtu))
        c.client(to_client(net, 'SA', FIRST, seq=SERVER_ISN, window=window,
                           options=[('MSS', 1200), scale]),
                 to_client(net, 'SA', FIRST, seq=SERVER_ISN, window=window - length,
                           options=[('MSS', mss), scale]))
        return c

    c = opened('handshake and data')
    c.server(to_server(net, 'A', FIRST, options=ACK_OPTIONS),
             to_server(net, 'A', FIRST, header, options=ACK_OPTIONS))
    c.server(to_server(net, 'PA', FIRST, b'odd'), to_server(net, 'PA', FIRST, header + b'odd'))
    c.server(to_server(net, 'PA', FIRST + 3, b'more'),
             to_server(net, 'PA', FIRST + 3 + length, b'more'))
    # Half of the header has arrived: the rest of it is not the client's window.
    half = length // 2
    c.client(to_client(net, 'A', FIRST + half, window=window),
             to_client(net, 'A', FIRST, window=window - -(-(length - half) // 8)))
    c.client(to_client(net, 'A', FIRST + length - 1, window=0),
             to_client(net, 'A', FIRST, window=0))
    c.server(to_server(net, 'A', FIRST), to_server(net, 'A', FIRST, header))
    c.client(to_client(net, 'A', FIRST + length, window=window),
             to_client(net, 'A', FIRST, window=window))
    c.server(to_server(net, 'PA', FIRST, b'odd'), to_server(net, 'PA', FIRST + length, b'odd'))
    c.server(to_server(net, 'A', FIRST - 1), to_server(net, 'A', FIRST - 1 + length))
    c.client(to_client(net, 'PA', FIRST + length + 7, b'reply', window=window),
             to_client(net, 'PA', FIRST + 7, b'reply', window=window))
    c.server(to_server(net, 'FA', FIRST + 7), to_server(net, 'FA', FIRST + 7 + length))
    c.client(to_client(net, 'RA', FIRST + 8 + length), to_client(net, 'RA', FIRST + 8))
    c.client(to_client(net, 'R', 0))
    # Once told, a SYN is the server's to answer, as it comes but for its data.
    c.server(to_server(net, 'S', ISN + 5000, b'fast open'), to_server(net, 'S', ISN + 5000))
    c.client(to_client(net, 'A', FIRST + length + 7), to_client(net, 'A', FIRST + 7))
    c.client(to_client(net, 'SA', FIRST + 5000, seq=SERVER_ISN), outcome='dropped')

    c = opened('FIN, RST and urgent data in the first segment')
    c.server(to_server(net, 'FA', FIRST), to_server(net, 'FA', FIRST, header))
    c.server(to_server(net, 'RA', FIRST), to_server(net, 'RA', FIRST, header))
    c.server(to_server(net, 'PAU', FIRST, b'urgent', urgptr=3),
             to_server(net, 'PAU', FIRST, header + b'urgent', urgptr=3 + length))
    c.server(to_server(net, 'PAU', FIRST, b'urgent', urgptr=0xfff0),
             to_server(net, 'PAU', FIRST, header + b'urgent', urgptr=0xffff))

    c = opened('what lies before the first byte carries nothing')
    c.server(to_server(net, 'A', FIRST - 1, b'?'), to_server(net, 'A', FIRST - 1))
    c.server(to_server(net, 'FPA', FIRST - 50, b'q' * 99), to_server(net, 'PA', FIRST - 50))
    c.server(to_server(net, 'R', FIRST - 50))

    c = Connection(name + 'the SYN carries no data', 'proxy', family)
    c.server(to_server(net, 'S', ISN, b'fast', options=SYN_OPTIONS),
             to_server(net, 'S', ISN, options=SYN_OPTIONS))

    c = opened('selective acknowledgements')
    pad = ('NOP', None)

    def both(before, after, ack=FIRST, **fields):
        c.client(to_client(net, 'A', ack, options=before, window=0),
                 to_client(net, 'A', fields.get('acked', FIRST), options=after, window=0))

    data = FIRST + length
    both([pad, pad, sack((data + 10, data + 20))], [pad, pad, sack((FIRST + 10, FIRST + 20))])
    both([pad, sack((data + 10, data + 20)), pad], [pad, sack((FIRST + 10, FIRST + 20)), pad])
    both([sack((FIRST + 5, FIRST + 9), (data + 10, data + 20)), pad, pad],
         [sack((FIRST + 10, FIRST + 20))] + [pad] * 10)
    both([pad, pad, sack((FIRST + 5, data + 3), (data + 10, data + 20), (data + 30, data + 31))],
         [pad, pad, sack((FIRST, FIRST + 3), (FIRST + 10, FIRST + 20), (FIRST + 30, FIRST + 31))])
    # A duplicate SACK of the header, which is often sent twice.
    both([pad, pad, sack((FIRST, data))], [pad] * 12, ack=data + 3, acked=FIRST + 3)

    for cut, what in ((1, 'by one byte'), (2, 'by two'), (length, 'by as much as is put in')):
        data = bytes(range(1, 1 + 2 * length))
        whole = len(to_server(net, 'A', FIRST, header + data))
        c = opened('a first segment too long ' + what, mtu=whole - cut)
        c.server(to_server(net, 'FA', FIRST, data),
                 to_server(net, 'A', FIRST, header + data[:-cut]))
        c.server(to_server(net, 'FPA', FIRST, data + b'x'),
                 to_server(net, 'PA', FIRST, header + data[:-cut]))
    c = opened('not even the header fits', mtu=len(to_server(net, 'A', FIRST, header)) - 1)
    c.server(to_server(net, 'A', FIRST, b'data'), outcome='drop_too_big')
    c.server(to_server(net, 'A', FIRST), outcome='drop_too_big')

    c = opened('headers of the IP layer in front')
    extra = [IPOption_NOP() if net == 4 else IPv6ExtHdrDestOpt()]
    c.server(to_server(net, 'PA', FIRST, b'odd', extension=extra),
             to_server(net, 'PA', FIRST, header + b'odd', extension=extra))

    c = Connection(name + 'the MSS leaves room', 'proxy', family, mtu=1400)
    c.server(to_server(net, 'S', ISN))
    most = largest_mss(1400)
    for options, clamped in (([('MSS', 1460)], [('MSS', most)]), ([('MSS', most)], [('MSS', most)]),
                             ([pad, ('MSS', 9000), pad], [pad, ('MSS', most), pad]),
                             ([('MSS', 536)], [('MSS', 536)]), ([], [])):
        c.client(to_client(net, 'SA', FIRST, seq=SERVER_ISN, window=500, options=options),
                 to_client(net, 'SA', FIRST, seq=SERVER_ISN, window=500 - length, options=clamped))


# ---- PROXY over UDP ----

def proxy_udp_cases(family, net):
    header = proxy_header(family, 'udp')
    c = Connection(f'proxy over udp {family} over {net}', 'proxy', family, protocol='udp')
    for payload in (b'', b'even', b'odd', bytes(range(256)) * 4):
        c.server(datagram(net, payload), datagram(net, header + payload))
    if net == 4:
        c.server(datagram(net, b'none', checksum=0), datagram(net, header + b'none', checksum=0))
    extra = [IPOption_NOP() if net == 4 else IPv6ExtHdrDestOpt()]
    c.server(datagram(net, b'odd', extension=extra),
             datagram(net, header + b'odd', extension=extra))


def main():
    for family, net in ((4, 4), (6, 6), (6, 4), (4, 6)):
        toa_cases(family, net)
        proxy_tcp_cases(family, net)
        proxy_udp_cases(family, net)
    return write_or_check('client_address.json', json_lines(cases) + '\n')


if __name__ == '__main__':
    sys.exit(main())
