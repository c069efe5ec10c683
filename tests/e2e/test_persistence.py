# SPDX-License-Identifier: Apache-2.0
"""Clients that stay with their real server: persistence, FTP with its data connections, marks."""

import os

from checks import (ECHO_PORT, cases, combinations, curl, datagram_socket, equal, expect, running,
                    start_echo, url, worker_options)
from lab import VIP, with_port


def persistent_service(lab, mode, port, flag):
    service = f'-t {with_port(VIP[4], port)}'
    lab.ipvsadm(f'-A {service} -s rr -p 300')
    for server in lab.servers:
        lab.ipvsadm(f'-a {service} -r {with_port(server.address(4), port)} {flag}')
    return service


@combinations((('nat', '-m'), ('dr', '-g')), (1, 2, 4))
def test_a_client_stays_with_its_server(mode, workers):
    mode, flag = mode
    with running('af_xdp', mode, worker_options(workers)) as lab:
        for server in lab.servers:
            server.start_nginx()
        persistent_service(lab, mode, 80, flag)
        answers = {curl(lab.client, url()).strip() for _ in range(12)}
        equal(len(answers), 1, f'servers that answer one client ({answers})')
        listing = lab.ipvsadm('-Ln --persistent-conn').stdout
        expect(any(line.split()[3:4] == ['1'] for line in listing.splitlines()
                   if line.startswith('  ->') and line.split()[1][0].isdigit()),
               f'no server has one template:\n{listing}')


def start_ftp(server):
    root = os.path.join(server.web_root(), '..', 'ftp')
    os.makedirs(root)
    with open(os.path.join(root, 'name'), 'w', encoding='utf-8') as file:
        file.write(server.role)
    process = server.start('/usr/bin/python3', '-m', 'pyftpdlib', '-i', VIP[4], '-p', '21',
                           '-d', root)
    process.wait_for_output('starting FTP server')


@combinations(('dr', 'tun'), (1, 2), ('active', 'passive'))
def test_ftp(mode, workers, kind):
    """The data connection of a passive transfer goes to the server of the control connection."""
    with running('af_xdp', mode, worker_options(workers)) as lab:
        for server in lab.servers:
            start_ftp(server)
        persistent_service(lab, mode, 21, {'dr': '-g', 'tun': '-i'}[mode])
        how = ['--ftp-port', '-'] if kind == 'active' else ['--ftp-pasv']
        got = {curl(lab.client, *how, f'ftp://{VIP[4]}/name') for _ in range(3)}
        equal(len(got), 1, f'servers that serve one client ({got})')
        expect(got <= {server.role for server in lab.servers}, f'what they send: {got}')


@cases(1, 2)
def test_services_by_mark(workers):
    """One service for two ports, and for an address that is not the director's."""
    with running('af_xdp', 'nat', worker_options(workers)) as lab:
        for server in lab.servers:
            server.start_nginx()
        lab.weirctl('add', 'mark-rule', 'to', f'{VIP[4]}/32', 'protocol', 'tcp', 'port', '80-90',
                    'mark', '7')
        lab.ipvsadm('-A -f 7 -s rr')
        for server in lab.servers:
            lab.ipvsadm(f'-a -f 7 -r {server.address(4)} -m')
        answers = {curl(lab.client, url()).strip() for _ in range(6 * workers)}
        equal(answers, {server.role for server in lab.servers}, 'servers that answer')


@cases(1, 2)
def test_each_datagram_of_a_one_packet_service_is_scheduled(workers):
    """One client's datagrams go round; the answers come from the VIP, or it would not take them."""
    with running('af_xdp', 'nat', worker_options(workers)) as lab:
        service = f'-u {with_port(VIP[4], ECHO_PORT)}'
        lab.ipvsadm(f'-A {service} -s rr -o')
        for server in lab.servers:
            start_echo(server)
            lab.ipvsadm(f'-a {service} -r {with_port(server.address(4), ECHO_PORT)} -m')
        with datagram_socket(lab.client, VIP[4], ECHO_PORT) as sender:
            answers = []
            for _ in range(6):
                sender.send(b'hello')
                answers.append(sender.recv(2048).split()[0].decode())
        equal(sorted(answers), sorted(2 * [server.role for server in lab.servers]),
              'answers to six datagrams')
