#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Answers each connection with the client's address and port out of its SYN's TOA option (254).

usage: toa_server.py PORT ADDRESS...
"""
import selectors
import socket
import struct
import sys

TCP_SAVE_SYN = 27
TCP_SAVED_SYN = 28
KIND_TOA = 254


def options_of(syn):
    """The TCP options of a saved SYN, which begins with the IP header."""
    header = (syn[0] & 15) * 4 if syn[0] >> 4 == 4 else 40
    tcp = syn[header:]
    options = tcp[20:(tcp[12] >> 4) * 4]
    while options and options[0] != 0:
        length = 1 if options[0] == 1 else options[1]
        yield options[0], options[2:length]
        options = options[length:]


def client_of(syn):
    for kind, value in options_of(syn):
        if kind == KIND_TOA:
            family = socket.AF_INET if len(value) == 6 else socket.AF_INET6
            return f'{socket.inet_ntop(family, value[2:])} {struct.unpack("!H", value[:2])[0]}'
    return 'nobody'


def main(port, addresses):
    waiting = selectors.DefaultSelector()
    for address in addresses:
        family = socket.AF_INET6 if ':' in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, TCP_SAVE_SYN, 1)
        listener.bind((address, port))
        listener.listen()
        waiting.register(listener, selectors.EVENT_READ)
    print('ready', flush=True)
    while True:
        for key, _ in waiting.select():
            connection, _ = key.fileobj.accept()
            syn = connection.getsockopt(socket.IPPROTO_TCP, TCP_SAVED_SYN, 512)
            connection.sendall(client_of(syn).encode() + b'\n')
            connection.close()


main(int(sys.argv[1]), sys.argv[2:])
