# SPDX-License-Identifier: Apache-2.0
"""Datagrams larger than any link takes at once."""

import contextlib
import os
import socket

from scapy.layers.inet import ICMP, IP, UDP

from checks import (ECHO_PORT, add_service, cases, combinations, counter, datagram_socket, equal,
                    exchange_datagram, expect, running, start_echo, worker_options)
from lab import CLIENT, ROOT, VIP, lan_address, wait_until

LARGE = 8192
SIZES = (1500, 3000, LARGE, LARGE + 1, 32001, 60000)
# What the length fields of IP allow.
LARGEST = {4: 65535 - 20 - 8, 6: 65535 - 8}
OUTER_HEADER = {4: 20, 6: 40}


def start_whole_decapsulation(lab, server):
    """The lab's tunnel device is per packet: what comes as fragments is for this program. Answers
    of IPv6 must fit the client's link, which is smaller than the server's, from the start."""
    router = lan_address(6, lab.server_arm, 254)
    server.run('ip', '-6', 'route', 'replace', 'default', 'via', router, 'mtu', 1440)
    process = server.start('/usr/bin/python3',
                           os.path.join(ROOT, 'tests', 'support', 'decapsulate_whole.py'))
    process.wait_for_output('ready')


@combinations(('nat', 'dr', 'tun', 'fullnat'), (4, 6), (1, 2))
def test_large_datagrams(mode, family, workers):
    """Ten clients: each one's datagrams, large and small, reach one server and come back."""
    with running('af_xdp', mode, worker_options(workers)) as lab:
        for server in lab.servers:
            start_echo(server, mode)
            if mode == 'tun':
                start_whole_decapsulation(lab, server)
        add_service(lab, mode, ECHO_PORT, 'udp', family)
        with contextlib.ExitStack() as opened:
            senders = [opened.enter_context(datagram_socket(lab.client, VIP[family], ECHO_PORT))
                       for _ in range(10)]
            for sender in senders:
                names = {exchange_datagram(sender, size) for size in (10, *SIZES, 10)}
                equal(len(names), 1, f'servers of one client: {names}')
        expect(counter(lab, 'fragment_kept') > 0, 'no fragment was collected')
        for name in ('drop_fragment_timeout', 'drop_fragment_overlap', 'drop_no_buffer',
                     'drop_fragment_table_full'):
            equal(counter(lab, name), 0, name)


@combinations(('nat', 'dr', 'fullnat'), (4, 6), (1, 2))
def test_the_largest_datagram(mode, family, workers):
    """In both directions: the answer begins with the server's name, so that it is cut off."""
    with running('af_xdp', mode, worker_options(workers), servers=1) as lab:
        start_echo(lab.servers[0], mode)
        add_service(lab, mode, ECHO_PORT, 'udp', family)
        with datagram_socket(lab.client, VIP[family], ECHO_PORT) as sender:
            data = os.urandom(LARGEST[family])
            sender.send(data)
            answer = sender.recv(65536)
            equal(len(answer), len(data), 'length of the answer')
            expect(data.startswith(answer.partition(b' ')[2]), 'it came back changed')


@cases(4, 6)
def test_the_largest_datagram_in_a_tunnel(family):
    """It leaves room for the outer header; what does not is dropped, as no one could receive it."""
    with running('af_xdp', 'tun', servers=1) as lab:
        start_echo(lab.servers[0], 'tun')
        start_whole_decapsulation(lab, lab.servers[0])
        add_service(lab, 'tun', ECHO_PORT, 'udp', family)
        largest = LARGEST[family] - OUTER_HEADER[family]
        with datagram_socket(lab.client, VIP[family], ECHO_PORT) as sender:
            sender.send(os.urandom(largest + 1))
            wait_until(lambda: counter(lab, 'drop_too_big') == 1, 'drop_too_big')
            data = os.urandom(largest)
            sender.send(data)
            answer = sender.recv(65536).partition(b' ')[2]
            expect(answer and data.startswith(answer), 'it came back changed')


def test_a_client_is_told_of_a_datagram_without_its_end():
    """After half a minute, which is Linux's time for fragments, too."""
    with running('af_xdp', 'nat', servers=1) as lab:
        add_service(lab, 'nat', ECHO_PORT, 'udp')
        with lab.client.entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with sender, receiver:
            receiver.settimeout(45)
            first = bytes(IP(src=CLIENT[4], dst=VIP[4], id=7, flags='MF')
                          / UDP(sport=4000, dport=ECHO_PORT, len=1000) / bytes(64))
            sender.sendto(first, (VIP[4], 0))
            error = IP(receiver.recv(2048))
            equal((error.src, error[ICMP].type, error[ICMP].code), (VIP[4], 11, 1), 'the error')
            quote = bytes(error[ICMP].payload)
            # A router on the way has counted a hop.
            equal(quote[12:], first[12:], 'what it quotes')
            equal((IP(quote).len, IP(quote).flags), (IP(first).len, 'MF'), 'quoted fields')


@cases(4, 6)
def test_large_datagram_to_a_port_that_is_no_service(family):
    """Only the whole shows its port: the director's own program gets it, as fragments again."""
    with running('af_xdp', 'nat') as lab:
        add_service(lab, 'nat', ECHO_PORT, 'udp', family)
        echo = lab.director.start('/usr/bin/python3',
                                  os.path.join(ROOT, 'tests', 'support', 'echo_server.py'),
                                  'director', ECHO_PORT + 1, VIP[family])
        echo.wait_for_output('ready')
        with datagram_socket(lab.client, VIP[family], ECHO_PORT + 1) as sender:
            equal(exchange_datagram(sender, LARGE), 'director', 'who answers')
