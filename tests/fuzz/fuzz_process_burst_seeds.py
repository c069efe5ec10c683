#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a few inputs for fuzz_process_burst into the directory given: small scripts in its format,
each a service and packets of a client and of a server that get through."""
import itertools
import pathlib
import socket
import struct
import sys

SERVICE, SERVER, TIME, SETTINGS, SETTLE, BURST = range(6)
NAT, DR, TUN = range(3)
FIN, SYN, RST, ACK = 1, 2, 4, 16
TO_US, RIGHT_CHECKSUM, RIGHT_LENGTH = 4, 8, 16


def key(udp, v6, port=80):
    return udp | v6 << 1 | (port - 80) << 4


def add_service(udp, v6, scheduler=0):
    return bytes([SERVICE, 5 + 8 * scheduler, key(udp, v6)])


def add_server(udp, v6, number, mode):
    choice = 2 + 4 * (10 + mode)  # add, weight 1
    return bytes([SERVER, choice, key(udp, v6), 160 + number if v6 else number, 0])


def frame(v6, udp, source, destination, ports, flags=0, port=0, hops=64, vlan=False):
    if udp:
        transport = struct.pack('!HHHH', *ports, 12, 0x1234) + b'data'
    else:
        transport = struct.pack('!HHIIBBHHH', *ports, 1, 1, 0x50, flags, 1000, 0x1234, 0)
    protocol = 17 if udp else 6
    if v6:
        header = struct.pack('!IHBB', 6 << 28, len(transport), protocol, hops)
        header += b''.join(socket.inet_pton(socket.AF_INET6, a) for a in (source, destination))
    else:
        header = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(transport), 7, 0, hops, protocol, 0)
        header += b''.join(socket.inet_aton(a) for a in (source, destination))
    ethernet = bytes(12) + (b'\x81\x00\x00\x05' if vlan else b'')
    data = ethernet + (b'\x86\xdd' if v6 else b'\x08\x00') + header + transport
    options = TO_US | RIGHT_CHECKSUM | port
    return bytes([options, len(data)]) + data


def burst(*frames):
    return bytes([BURST, len(frames) - 1]) + b''.join(frames)


def life(udp, v6, mode):
    """A service with two servers, a connection's packets, time, a removal, more packets."""
    client, vip, server = (('2001:db8:1::1', '2001:db8:9::1', '2001:db8:2::2') if v6 else
                           ('10.1.0.1', '10.9.0.1', '10.2.0.2'))

    def there(flags, **more):
        return frame(v6, udp, client, vip, (4000, 80), flags, **more)

    def back(flags):
        return frame(v6, udp, server, client, (80, 4000), flags, port=1)

    return b''.join([
        add_service(udp, v6), add_server(udp, v6, 1, mode), add_server(udp, v6, 2, mode),
        burst(there(SYN), back(SYN | ACK), there(ACK)),
        bytes([TIME, 2]),
        burst(there(ACK, hops=1), there(ACK, vlan=True), back(FIN | ACK), there(RST)),
        bytes([SERVER, 0, key(udp, v6), 162 if v6 else 2, 0]),
        burst(there(ACK)),
        bytes([SETTINGS, 5, SETTLE, TIME, 20]),
        burst(there(SYN), there(SYN)),
    ])


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for udp, v6, mode in itertools.product((0, 1), (0, 1), (NAT, DR, TUN)):
        name = f'{"udp" if udp else "tcp"}-{6 if v6 else 4}-{("nat", "dr", "tun")[mode]}'
        (directory / name).write_bytes(life(udp, v6, mode))


main()
