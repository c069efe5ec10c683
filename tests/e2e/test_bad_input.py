# SPDX-License-Identifier: Apache-2.0
"""Requests that cannot be met: one sentence, exit code 1, and nothing left behind."""

import errno
import os
import socket

from checks import (ECHO_PORT, FLAG, SMALL_TABLE, add_service, cases, connect, counter, curl,
                    datagram_socket, equal, expect, receive_line, running, start_echo, url)
from lab import BUILD, VIP, Lab, run, wait_until, with_port
from test_life import has_program, interfaces

IP_RECVERR = 11  # of <linux/in.h>

IMPOSSIBLE = {
    'unknown-option': (['--port', 'eth0', '--no-such-option'], 'no-such-option'),
    'no-port': ([], '--port'),
    'no-such-port': (['--port', 'eth7'], 'eth7'),
    'no-such-pci-address': (['--port', '0000:3f:00.0'], '0000:3f:00.0'),
    'no-such-driver': (['--port', 'vdev:net_nosuch0'], 'net_nosuch0'),
    'unreadable-settings': (['--settings', '/no/such/weir.ini'], '/no/such/weir.ini'),
    'more-workers-than-cores': (['--port', 'eth0', '--workers', '64'], '--lcores'),
    'same-port-twice': (['--port', 'eth0', '--port', 'eth0'], 'eth0 is there twice'),
    'address-label': (['--port', 'eth0:1'], '--port eth0,'),
    'bad-lcores': (['--port', 'eth0', '--lcores', 'nonsense'], '--lcores=nonsense'),
    'bad-eal-argument': (['--port', 'eth0', '--eal', '--no-such-one'], '--no-such-one'),
    'no-workers': (['--port', 'eth0', '--workers', '0'], 'workers'),
    'not-a-number': (['--port', 'eth0', '--workers', 'two'], 'two'),
    'too-little-memory': (['--port', 'eth0', '--connections-per-worker', '1000000000'],
                          '--connections-per-worker'),
    'socket-in-no-directory': (['--port', 'eth0', '--socket', '/dev/null/weir.sock'],
                               '/dev/null/weir.sock'),
}


@cases(*IMPOSSIBLE)
def test_start(name):
    options, named = IMPOSSIBLE[name]
    with Lab(servers=1) as lab:
        before = interfaces(lab.director)
        own_socket = () if '--socket' in options else ('--socket', lab.socket)
        weir = lab.director.start(os.path.join(BUILD, 'weir'), *own_socket,
                                  *options)
        equal(weir.wait(20), 1, f'exit code, after {weir.output()}')
        # Not of the machine's memory, and not getopt's, which speaks in weir's name.
        said = [line for line in weir.output().splitlines() if line.startswith('weir: ')
                and 'huge pages' not in line and 'unrecognized option' not in line]
        equal(len(said), 1, f'sentences in {weir.output()}')
        expect('Usage' not in weir.output(), 'a long usage')
        expect(named in said[0], f'"{said[0]}" does not name {named}')
        equal(interfaces(lab.director), before, 'interfaces')
        expect(not has_program(lab.director, 'eth0'), 'a program is left')
        expect(not os.path.exists(lab.socket), 'a socket is left')


@cases('file', 'directory', 'link')
def test_socket_option_that_names_something_else_leaves_it_alone(kind):
    with Lab(servers=1) as lab:
        path = os.path.join(lab.directory, kind)
        make = {'file': lambda: open(path, 'w', encoding='utf-8').close(),
                'directory': lambda: os.mkdir(path), 'link': lambda: os.symlink('/etc', path)}
        make[kind]()
        weir = lab.director.start(os.path.join(BUILD, 'weir'), '--port', 'eth0', '--socket', path,
                                  *SMALL_TABLE)
        equal(weir.wait(20), 1, f'exit code, after {weir.output()}')
        expect(path in weir.output(), f'"{weir.output()}" does not name {path}')
        found = {'file': os.path.isfile, 'directory': os.path.isdir, 'link': os.path.islink}
        expect(found[kind](path), f'the {kind} is gone')


def test_interface_with_an_mtu_that_af_xdp_cannot_carry():
    with Lab(servers=1) as lab:
        lab.director.ip('link set eth0 mtu 9000')
        weir = lab.start_weir('--port', 'eth0', *SMALL_TABLE, ready=False)
        equal(weir.wait(20), 1, 'exit code')
        expect('MTU' in weir.output() and 'eth0' in weir.output(), weir.output())


def test_clients_without_a_running_weir_name_the_socket_and_the_remedy():
    with Lab(servers=1) as lab:
        for program in ('ipvsadm', 'weirctl'):
            arguments = ['-Ln'] if program == 'ipvsadm' else ['show', 'counters']
            done = run(os.path.join(BUILD, program), *arguments, check=False,
                       env=lab.environment())
            equal(done.returncode, 255, f'exit code of {program}')
            expect(lab.socket in done.stderr and 'weir' in done.stderr, done.stderr)


def test_client_address_without_effect_is_said():
    with running(servers=1) as lab:
        place = with_port(VIP[4], 80)
        for protocol in 'tu':
            lab.ipvsadm(f'-A -{protocol} {place} -s rr')
        done = lab.weirctl('set', 'service', 'udp', place, 'client-address', 'toa', check=False)
        expect(done.returncode == 255 and 'TCP' in done.stderr, done.stderr)
        equal(lab.weirctl('set', 'service', 'tcp', place, 'client-address', 'toa').stderr, '',
              'said before there is a real server')
        lab.ipvsadm(f'-a -t {place} -r {lab.servers[0].address()}:80 -m')
        expect('no effect' in lab.weirctl('show', 'services').stdout, 'show services is silent')
        done = lab.weirctl('set', 'service', 'tcp', place, 'client-address', 'proxy')
        expect('no effect' in done.stderr, 'set service is silent')


def test_real_server_without_a_route_costs_only_its_own_packets():
    with running(servers=1) as lab:
        lab.servers[0].start_nginx()
        start_echo(lab.servers[0])
        lab.director.ip('route delete default', check=False)
        lab.director.ip('route add 198.51.100.0/24 via 10.0.0.254')
        add_service(lab, 'nat', 80)
        lab.ipvsadm(f'-A -u {VIP[4]}:{ECHO_PORT} -s rr')
        lab.ipvsadm(f'-a -u {VIP[4]}:{ECHO_PORT} -r 203.0.113.5:{ECHO_PORT} -m')
        with datagram_socket(lab.client, VIP[4], ECHO_PORT) as sender:
            sender.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            sender.send(b'nowhere')
            try:
                sender.recv(1)
                expect(False, 'an answer from nowhere')
            except OSError as error:
                equal(error.errno, errno.EHOSTUNREACH, 'what the client is told')
        equal(curl(lab.client, url()).strip(), 'server1', 'answer of the other service')


@cases((4, 6, 'nat'), (6, 4, 'nat'), (4, 6, 'dr'), (6, 4, 'dr'))
def test_address_family_that_a_mode_cannot_carry(family, real_family, mode):
    with running(servers=1) as lab:
        service = f'-t {with_port(VIP[family], 80)}'
        lab.ipvsadm(f'-A {service}')
        real = with_port(lab.servers[0].address(real_family), 80)
        done = lab.ipvsadm(f'-a {service} -r {real} {FLAG[mode]}', check=False)
        equal(done.returncode, 2, 'exit code')
        expect('Different address family is allowed only for tunneling servers' in done.stderr,
               done.stderr)


def test_real_server_that_refuses_is_not_weirs_affair():
    """Nobody listens: the real server's RST reaches the client, and other services go on."""
    with running(servers=1) as lab:
        start_echo(lab.servers[0])
        add_service(lab, 'nat', 80)
        add_service(lab, 'nat', ECHO_PORT)
        try:
            connect(lab.client, VIP[4], 80)
            raise AssertionError('a connection was opened')
        except ConnectionRefusedError:
            pass
        equal(receive_line(connect(lab.client, VIP[4], ECHO_PORT)), 'server1', 'greeting')
