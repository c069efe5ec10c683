# SPDX-License-Identifier: Apache-2.0
"""A full connection table, and a real server that moves."""

import itertools

from checks import (ECHO_PORT, add_service, counter, curl, datagram_socket, connect, exchange,
                    expect, receive_line, running, start_echo, url)
from lab import VIP, LabError, wait_until


def test_full_table_keeps_established_connections_and_counts_the_rest():
    with running(options=('--connections-per-worker', '1024')) as lab:
        for server in lab.servers:
            start_echo(server)
        add_service(lab, 'nat', ECHO_PORT, 'tcp')
        add_service(lab, 'nat', ECHO_PORT, 'udp')
        streams = [connect(lab.client, VIP[4], ECHO_PORT) for _ in range(20)]
        for stream in streams:
            receive_line(stream)
        senders = []
        for number in itertools.count():
            senders.append(datagram_socket(lab.client, VIP[4], ECHO_PORT))
            senders[-1].send(b'one more')
            if number % 100 == 99 and counter(lab, 'drop_table_full') > 0:
                break
            expect(number < 5000, '5,000 connections in a table of 1,024, and none was dropped')
        for stream in streams:
            expect(exchange(stream, b'still here') == b'still here', 'a connection is broken')
        for sender in senders:
            sender.close()


def test_real_server_whose_mac_changes_is_reached_again_within_10_seconds():
    for family in (4, 6):
        with running(servers=1) as lab:
            server = lab.servers[0]
            server.start_nginx()
            add_service(lab, 'nat', 80, 'tcp', family)
            curl(lab.client, url(family))
            server.ip('link set eth0 address 02:00:00:00:00:77')
            server.set_up('nat')

            def answers():
                try:
                    return curl(lab.client, url(family), seconds=1)
                except LabError:
                    return False
            wait_until(answers, 'the service after the change of MAC', 10.0)
