# SPDX-License-Identifier: Apache-2.0
"""Datagrams larger than any link takes at once."""

import contextlib
import os

from checks import (ECHO_PORT, add_service, cases, combinations, counter, datagram_socket, equal,
                    exchange_datagram, expect, running, start_echo, worker_options)
from lab import ROOT, VIP, lan_address

LARGE = 8192
SIZES = (1500, 3000, LARGE, LARGE + 1, 32001, 60000)


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
