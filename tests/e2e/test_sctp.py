# SPDX-License-Identifier: Apache-2.0
"""SCTP by a whole protocol stack at both ends: the kernel of the lab has none."""

import collections
import os
import subprocess

from checks import (WIRES, add_service, cases, equal, expect, running, worker_options)
from lab import BUILD, CLIENT, VIP, host_length, lan_address, wait_until, with_port

PEER = os.path.join(BUILD, 'tests', 'sctp_peer')
PORT = 7200
LARGE = 200_000  # bytes of one message: some 150 packets


def hold_vip(server):
    """The stack takes no address of lo, and leaves the choice of an IPv6 source to the kernel."""
    router = lan_address(6, server.lab.server_arm, 254)
    server.ip('address flush dev lo scope global', 'link add vip type bridge', 'link set vip up',
              *(f'address add {VIP[family]}/{host_length(family)} dev vip nodad'
                for family in (4, 6)),
              f'route replace default via {router} src {VIP[6]}')


def start_servers(lab, mode):
    for server in lab.servers:
        if mode in ('dr', 'tun'):
            hold_vip(server)
        process = server.start(PEER, 'serve', server.role, PORT, *server.service_addresses(mode))
        process.wait_for_output('ready')


class Client:
    """Associations of one process of the client's with the service."""

    def __init__(self, lab, family, associations):
        self.associations = associations
        self.process = lab.client.start(PEER, 'connect', CLIENT[family], VIP[family], PORT,
                                        associations, stdin=subprocess.PIPE)
        self.process.wait_for_output('up\n')

    def exchange(self, size):
        """Sends a message on each association; the names of the servers that answer."""
        before = len(self.process.output().splitlines())

        def answers():
            expect(self.process.exit_code is None, f'the client ended: {self.process.output()}')
            return self.process.output().splitlines()[before:]
        self.process.write(f'{size}\n')
        wait_until(lambda: len(answers()) == self.associations, 'an answer on each association')
        return answers()

    def shut_down(self):
        self.process.close_input()
        self.process.wait_for_output('closed\n')


def states(lab, family):
    """State -> connections that `ipvsadm -Lnc` lists in it."""
    rows = [line.split() for line in lab.ipvsadm('-Lnc').stdout.splitlines()]
    return dict(collections.Counter(row[2] for row in rows if row[0] == 'SCTP'
                                    and row[4] == with_port(VIP[family], PORT)))


def check_association(lab, mode, family, workers):
    associations = 3 if workers == 1 else 12
    add_service(lab, mode, PORT, 'sctp', family)
    client = Client(lab, family, associations)
    equal(states(lab, family), {'ESTABLISHED': associations}, 'states after the handshake')
    answers = client.exchange(10)
    equal(set(answers), {'server1', 'server2', 'server3'}, 'servers that answer')
    equal(client.exchange(LARGE), answers, 'servers that answer the large message')
    client.shut_down()
    wait_until(lambda: states(lab, family) == {'CLOSED': associations}, 'all to be CLOSED')


@cases(*((wire, mode, 1) for wire in WIRES for mode in ('nat', 'dr', 'tun', 'fullnat')),
       ('af_xdp', 'nat', 2), ('af_xdp', 'fullnat', 2))
def test_association(wire, mode, workers):
    """Handshake, messages of one packet and of many, shutdown."""
    with running(wire, mode, worker_options(workers)) as lab:
        start_servers(lab, mode)
        for family in (4, 6):
            check_association(lab, mode, family, workers)


@cases('nat', 'dr', 'fullnat')
def test_client_is_told_that_its_server_is_gone(mode):
    with running('af_xdp', mode) as lab:
        start_servers(lab, mode)
        for family in (4, 6):
            service = add_service(lab, mode, PORT, 'sctp', family)
            lab.weirctl('set', 'service', 'sctp', with_port(VIP[family], PORT), 'gone-server',
                        'reset')
            client = Client(lab, family, 3)
            equal(set(client.exchange(10)), {'server1', 'server2', 'server3'},
                  'servers that answer')
            for server in lab.servers:
                lab.ipvsadm(f'-d {service} -r {with_port(server.address(family), PORT)}')
            equal(client.exchange(10), ['Connection reset by peer'] * 3,
                  'associations to removed servers')
