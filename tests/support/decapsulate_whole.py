#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A real server's tunnel device for packets that came as fragments: the kernel puts them together
for a raw socket, and what is inside goes back to the kernel through a TUN device.

usage: decapsulate_whole.py

For IPIP and its three likes. Prints "ready" when it listens.
"""

import fcntl
import os
import selectors
import socket
import struct
import subprocess

TUNSETIFF = 0x400454ca
IFF_TUN = 1
DEVICE = 'inside'
ETHER_TYPE = {socket.IPPROTO_IPIP: 0x0800, socket.IPPROTO_IPV6: 0x86dd}
LARGEST = 65536


def open_device():
    """Its reads and writes have four bytes in front: flags, Ethernet type."""
    device = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack('16sH', DEVICE.encode(), IFF_TUN))
    for command in (f'ip link set {DEVICE} up', f'sysctl -q net.ipv4.conf.{DEVICE}.rp_filter=0',
                    'sysctl -q net.ipv4.conf.all.rp_filter=0'):
        subprocess.run(command.split(), check=True)
    return device


def main():
    device = open_device()
    selector = selectors.DefaultSelector()
    for family in (socket.AF_INET, socket.AF_INET6):
        for protocol in ETHER_TYPE:
            selector.register(socket.socket(family, socket.SOCK_RAW, protocol),
                              selectors.EVENT_READ, protocol)
    print('ready', flush=True)
    while True:
        for key, _ in selector.select():
            packet = key.fileobj.recv(LARGEST)
            # A raw socket of IPv4 gives the header, too.
            if key.fileobj.family == socket.AF_INET:
                packet = packet[(packet[0] & 15) * 4:]
            os.write(device, struct.pack('!HH', 0, ETHER_TYPE[key.data]) + packet)


if __name__ == '__main__':
    main()
