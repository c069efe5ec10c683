#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a few inputs for fuzz_process_burst into the directory given: small scripts in its format,
each a service and packets of a client and of a server that get through."""
import itertools
import pathlib
import socket
import struct
import sys

SERVICE, SERVER, TIME, SETTINGS, SETTLE, BURST, MARK, OPTION = range(8)
NAT, DR, TUN = range(3)
FIN, SYN, RST, ACK = 1, 2, 4, 16
PROTOCOLS = ('tcp', 'udp', 'sctp')
TUNNELS = ((1, 0), (1, 1), (1, 2), (2, 0), (2, 1))  # GUE, GRE; none, checksum, remote
TO_US, RIGHT_CHECKSUM, RIGHT_LENGTH = 4, 8, 16


def key(protocol, v6, port=80):
    return {'tcp': 0, 'udp': 1, 'sctp': 0x40}[protocol] | v6 << 1 | (port - 80) << 4


# Options of a service.
ONE_PACKET, PERSISTENT, BY_NETWORK = 1, 2 << 1, 8


def add_service(protocol, v6, scheduler=0, options=0):
    return bytes([SERVICE, 5 + 8 * scheduler, key(protocol, v6), options])


def add_server(protocol, v6, number, mode, tunnel=(0, 0), thresholds=0):
    choice = 2 + 4 * (10 + mode)  # add, weight 1
    kind, checksum = tunnel
    return bytes([SERVER, choice, key(protocol, v6), 160 + number if v6 else number,
                  kind * 4 + checksum * 16, thresholds])


def sctp_chunk(flags):
    """The chunk that plays the part of a segment with these flags."""
    return {SYN: 1, SYN | ACK: 2, ACK: 10, FIN | ACK: 7, RST: 6}[flags]


def frame(v6, protocol, source, destination, ports, flags=0, port=0, hops=64, vlan=False,
          worker=0):
    if protocol == 'udp':
        transport = struct.pack('!HHHH', *ports, 12, 0x1234) + b'data'
    elif protocol == 'sctp':
        transport = struct.pack('!HHIIBBH', *ports, 7, 0, sctp_chunk(flags), 0, 8) + b'data'
    else:
        transport = struct.pack('!HHIIBBHHH', *ports, 1, 1, 0x50, flags, 1000, 0x1234, 0)
    number = {'tcp': 6, 'udp': 17, 'sctp': 132}[protocol]
    if v6:
        header = struct.pack('!IHBB', 6 << 28, len(transport), number, hops)
        header += b''.join(socket.inet_pton(socket.AF_INET6, a) for a in (source, destination))
    else:
        header = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(transport), 7, 0, hops, number, 0)
        header += b''.join(socket.inet_aton(a) for a in (source, destination))
    ethernet = bytes(12) + (b'\x81\x00\x00\x05' if vlan else b'')
    data = ethernet + (b'\x86\xdd' if v6 else b'\x08\x00') + header + transport
    options = TO_US | RIGHT_CHECKSUM | port | worker << 1
    return bytes([options, len(data)]) + data


def burst(*frames):
    return bytes([BURST, len(frames) - 1]) + b''.join(frames)


def life(protocol, v6, mode, tunnel=(0, 0)):
    """A service with two servers, a connection's packets, time, a removal, more packets."""
    client, vip, server = (('2001:db8:1::1', '2001:db8:9::1', '2001:db8:2::2') if v6 else
                           ('10.1.0.1', '10.9.0.1', '10.2.0.2'))

    def there(flags, **more):
        return frame(v6, protocol, client, vip, (4000, 80), flags, **more)

    def back(flags):
        return frame(v6, protocol, server, client, (80, 4000), flags, port=1)

    return b''.join([
        add_service(protocol, v6), add_server(protocol, v6, 1, mode, tunnel),
        add_server(protocol, v6, 2, mode, tunnel),
        burst(there(SYN), back(SYN | ACK), there(ACK)),
        bytes([TIME, 2]),
        burst(there(ACK, hops=1), there(ACK, vlan=True), back(FIN | ACK), there(RST)),
        bytes([SERVER, 0, key(protocol, v6), 162 if v6 else 2, 0, 0]),
        burst(there(ACK)),
        bytes([SETTINGS, 5, SETTLE, TIME, 20]),
        burst(there(SYN), there(SYN)),
    ])


def many_clients(protocol, v6, options, thresholds=0, mark=False):
    """Clients of one network, each received by the wrong worker or the right one; then time."""
    vip, client = ('2001:db8:9::1', '2001:db8:1::') if v6 else ('10.9.0.1', '10.1.0.')
    services = [add_service(protocol, v6, options=options)]
    services += [add_server(protocol, v6, number, NAT, thresholds=thresholds)
                 for number in (1, 2)]
    if mark:
        services = [s[:2] + bytes([0x80 | v6 << 1]) + s[3:] for s in services]
        services.append(bytes([MARK, 2]))
    bursts = [burst(*(frame(v6, protocol, f'{client}{1 + i}', vip, (4000 + i, 80), SYN,
                            worker=i % 2) for i in range(first, first + 4)))
              for first in range(0, 12, 4)]
    return b''.join([*services, *bursts, bytes([OPTION, key(protocol, v6), 4]),
                     bytes([SERVER, 0, key(protocol, v6), 161 if v6 else 1, 0, 0]), *bursts,
                     bytes([SETTINGS, 12, TIME, 70]), *bursts])


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for protocol, v6, mode in itertools.product(PROTOCOLS, (0, 1), (NAT, DR, TUN)):
        name = f'{protocol}-{6 if v6 else 4}-{("nat", "dr", "tun")[mode]}'
        (directory / name).write_bytes(life(protocol, v6, mode))
    for v6, tunnel in itertools.product((0, 1), TUNNELS):
        (directory / f'tunnel-{6 if v6 else 4}-{tunnel[0]}-{tunnel[1]}').write_bytes(
            life('udp', v6, TUN, tunnel))
    for v6, protocol in itertools.product((0, 1), ('tcp', 'udp')):
        family = f'{protocol}-{6 if v6 else 4}'
        (directory / f'persistent-{family}').write_bytes(
            many_clients(protocol, v6, PERSISTENT | BY_NETWORK))
        (directory / f'alone-{family}').write_bytes(many_clients(protocol, v6, ONE_PACKET))
        (directory / f'alone-persistent-{family}').write_bytes(
            many_clients(protocol, v6, ONE_PACKET | PERSISTENT))
        (directory / f'thresholds-{family}').write_bytes(many_clients(protocol, v6, 0, 3 + 8))
        (directory / f'marked-{family}').write_bytes(
            many_clients(protocol, v6, PERSISTENT, mark=True))


main()
