# SPDX-License-Identifier: Apache-2.0
"""veth as the kernel makes it: senders leave checksums and segments to the device."""

import os

from checks import (ECHO_PORT, add_service, combinations, connect, datagram_socket, equal,
                    exchange, exchange_datagram, expect, receive_line, running, start_echo)
from lab import AS_THE_KERNEL_HAS_THEM, VIP

MODES = ('nat', 'dr', 'tun', 'fullnat')


@combinations(MODES, (4, 6))
def test_tcp_and_udp(mode, family):
    with running('af_xdp', mode, servers=1, offloads=AS_THE_KERNEL_HAS_THEM) as lab:
        start_echo(lab.servers[0], mode)
        for protocol in ('tcp', 'udp'):
            add_service(lab, mode, ECHO_PORT, protocol, family)
        with connect(lab.client, VIP[family], ECHO_PORT) as stream:
            equal(receive_line(stream), 'server1', 'greeting')
            data = os.urandom(3_000_000)
            expect(exchange_both(stream, data) == data, 'the answer differs')
        with datagram_socket(lab.client, VIP[family], ECHO_PORT) as sender:
            for size in (1, 1000, 1300):
                equal(exchange_datagram(sender, size), 'server1', 'who answers a datagram')


def exchange_both(stream, data, piece=100_000):
    """In pieces, which the sockets' buffers hold."""
    return b''.join(exchange(stream, data[at:at + piece]) for at in range(0, len(data), piece))
