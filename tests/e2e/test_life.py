# SPDX-License-Identifier: Apache-2.0
"""Start, stop, death and the loss of an interface."""

import os
import re
import select
import shlex
import signal
import time

from checks import (ECHO_PORT, SMALL_TABLE, add_service, alone, cases, connect, curl, equal,
                    exchange, expect, receive_line, running, start_echo, start_weir, url)
from lab import BUILD, VIP, LabError, lan_address, wait_until
from test_frames import IP, TCP, packet_socket
from test_kernel import SSH, start_echo_on_director


def interfaces(host):
    return {line.split(':')[1].strip().split('@')[0]
            for line in host.run('ip', '-o', 'link').stdout.splitlines()}


def has_program(host, interface):
    return 'xdp' in host.run('ip', 'link', 'show', interface).stdout


def has_guard(host, interface):
    return 'weir_guard' in host.run('tc', 'filter', 'show', 'dev', interface, 'ingress').stdout


def free_huge_pages():
    with open('/proc/meminfo', encoding='utf-8') as info:
        fields = dict(line.split(':') for line in info)
    return int(fields['HugePages_Total']) - int(fields['HugePages_Free'])


def flags_from_vip(watching, seconds):
    """The TCP flags of every segment from the VIP to the client in that time."""
    seen = []
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([watching], [], [], left)[0]:
            frame = watching.recv()
            if frame is not None and TCP in frame and frame[IP].src == VIP[4]:
                seen.append(str(frame[TCP].flags))
    return seen


def test_sigkill_is_silence_for_clients_and_nothing_for_the_rest():
    with running() as lab:
        for server in lab.servers:
            start_echo(server)
        start_echo_on_director(lab)
        add_service(lab, 'nat', ECHO_PORT)
        established = connect(lab.client, VIP[4], ECHO_PORT)
        receive_line(established)
        ssh = connect(lab.client, lan_address(4, 0, 1), SSH)
        receive_line(ssh)
        lab.weirs[0].stop(signal.SIGKILL)
        watching = packet_socket(lab.client, 'eth0')
        established.sendall(b'into the dark')
        equal(flags_from_vip(watching, 2.0), [], 'segments from the VIP')
        expect(exchange(ssh, b'still here') == b'still here', 'SSH is broken')
        expect(receive_line(connect(lab.client, lan_address(4, 0, 1), SSH)) == 'director',
               'no new SSH')
        lab.client.run('ping', '-n', '-c', 1, '-W', 2, VIP[4])


def test_start_after_sigkill_needs_no_clean_up():
    with running() as lab:
        for server in lab.servers:
            server.start_nginx()
        for _ in range(2):
            lab.weirs[-1].stop(signal.SIGKILL)
            lab.delete_vip()
            start_weir(lab, 'af_xdp')
            add_service(lab, 'nat', 80)
            expect(curl(lab.client, url()).startswith('server'), 'the service does not answer')


def test_start_that_fails_after_sigkill_keeps_the_silence():
    with running() as lab:
        for server in lab.servers:
            start_echo(server)
        add_service(lab, 'nat', ECHO_PORT)
        established = connect(lab.client, VIP[4], ECHO_PORT)
        receive_line(established)
        lab.weirs[0].stop(signal.SIGKILL)
        failing = lab.director.start(os.path.join(BUILD, 'weir'), '--port', 'eth0', '--socket',
                                     f'{lab.socket}/in-no-directory', *SMALL_TABLE)
        equal(failing.wait(20), 1, 'exit code of a weir without a socket')
        watching = packet_socket(lab.client, 'eth0')
        established.sendall(b'into the dark')
        equal(flags_from_vip(watching, 2.0), [], 'segments from the VIP')
        how_to_end_it = re.search('`(tc .*)`', failing.output())
        expect(how_to_end_it, f'it does not say how to end the silence: {failing.output()}')
        lab.director.run(*how_to_end_it[1].split())
        wait_until(lambda: 'R' in flags_from_vip(watching, 0.1), 'a RST of the kernel')


def test_second_weir_on_the_same_interface_is_refused_and_disturbs_nothing():
    with running() as lab:
        for server in lab.servers:
            server.start_nginx()
        add_service(lab, 'nat', 80)
        second = lab.director.start(os.path.join(BUILD, 'weir'), '--port', 'eth0', '--socket',
                                    f'{lab.socket}.second', *SMALL_TABLE)
        equal(second.wait(20), 1, 'exit code of the second weir')
        expect('eth0' in second.output(), f'it does not name the interface: {second.output()}')
        expect(not os.path.exists(f'{lab.socket}.second'), 'the second weir left its socket')
        expect(has_program(lab.director, 'eth0'), 'the program of the first weir is gone')
        expect(curl(lab.client, url()).startswith('server'), 'the service does not answer')


def test_second_weir_on_the_same_socket_is_refused_and_disturbs_nothing():
    with running(arms=2) as lab:
        lab.weirs[0].stop()
        lab.delete_vip()
        lab.start_weir('--port', 'eth0', *SMALL_TABLE)
        second = lab.start_weir('--port', 'eth1', *SMALL_TABLE, ready=False)
        equal(second.wait(20), 1, 'exit code of the second weir')
        expect(lab.socket in second.output(), f'it does not name the socket: {second.output()}')
        lab.ipvsadm('-Ln')


@alone  # counts the machine's huge pages
@cases(('af_xdp', signal.SIGTERM), ('af_xdp', signal.SIGINT), ('own_port', signal.SIGTERM))
def test_clean_stop_leaves_nothing(wire, signal_number):
    with running() as lab:
        lab.weirs[0].stop()
        lab.delete_vip()
        before, pages = interfaces(lab.director), free_huge_pages()
        weir = start_weir(lab, wire, '--on-exit', 'release')
        add_service(lab, 'nat', 80)
        equal(weir.stop(signal_number), 0, 'exit code')
        after = interfaces(lab.director)
        expect(after <= before, f'interfaces left: {after - before}')
        expect(wire == 'own_port' or not has_program(lab.director, 'eth0'), 'a program is left')
        expect(wire == 'own_port' or not has_guard(lab.director, 'eth0'), 'a filter is left')
        expect(not os.path.exists(lab.socket), 'the socket is left')
        wait_until(lambda: free_huge_pages() <= pages, 'huge pages given back', 2.0)


@cases(signal.SIGQUIT, signal.SIGALRM, signal.SIGXCPU, signal.SIGRTMIN)
def test_any_signal_that_ends_it_cleans_up(signal_number):
    with running() as lab:
        equal(lab.weirs[0].stop(signal_number), 0, 'exit code')
        expect(not os.path.exists(lab.socket), 'the socket is left')


def test_signals_that_end_nothing():
    with running() as lab:
        for server in lab.servers:
            server.start_nginx()
        add_service(lab, 'nat', 80)
        for signal_number, said in ((signal.SIGHUP, 'SIGHUP'), (signal.SIGUSR1, 'signal 1'),
                                    (signal.SIGUSR2, 'signal 2'), (signal.SIGPIPE, '')):
            os.kill(lab.weirs[0].pid, signal_number)
            lab.weirs[0].wait_for_output(said)
        expect(curl(lab.client, url()).startswith('server'), 'the service does not answer')


def test_reader_of_the_log_that_goes_away_ends_nothing():
    with running(servers=1) as lab:
        lab.weirs[0].stop()
        lab.servers[0].start_nginx()
        log = os.path.join(lab.directory, 'log')
        os.mkfifo(log)
        reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
        weir = shlex.join([os.path.join(BUILD, 'weir'), '--port', 'eth0', '--socket', lab.socket,
                           *SMALL_TABLE])
        process = lab.director.start('sh', '-c', f'exec {weir} > {log} 2>&1')
        wait_until(lambda: select.select([reader], [], [], 1)[0] and
                   b'weir: ready' in os.read(reader, 65536), 'weir: ready')
        os.close(reader)
        add_service(lab, 'nat', 80)
        lab.delete_vip()
        wait_until(lambda: 'takes no traffic' in lab.weirctl('show', 'services').stdout,
                   'a line for the log')
        lab.add_vip()
        wait_until(lambda: 'takes no traffic' not in lab.weirctl('show', 'services').stdout,
                   'another one')
        equal(process.exit_code, None, 'exit code')
        del lab.servers[1:]
        expect(curl(lab.client, url()).startswith('server'), 'the service does not answer')


@cases(signal.SIGTERM, signal.SIGKILL)
def test_restart_is_silence_until_the_services_are_back(signal_number):
    """A connection outlives it, where weir takes over connections that it has not seen begin."""
    with running(servers=1) as lab:
        start_echo(lab.servers[0])
        add_service(lab, 'nat', ECHO_PORT)
        established, sending = (connect(lab.client, VIP[4], ECHO_PORT) for _ in range(2))
        receive_line(established)
        receive_line(sending)
        lab.weirs[0].stop(signal_number)
        watching = packet_socket(lab.client, 'eth0')
        sending.sendall(b'into the dark')
        equal(flags_from_vip(watching, 1.0), [], 'segments from the VIP without a weir')
        weir = lab.start_weir('--port', 'eth0', *SMALL_TABLE)
        expect('silence' in weir.output(), f'it does not say so: {weir.output()}')
        equal(flags_from_vip(watching, 2.0), [], 'segments from the VIP without services')
        sending.close()
        lab.weirctl('set', 'sloppy_tcp', '1')
        add_service(lab, 'nat', ECHO_PORT)
        expect(exchange(established, b'again') == b'again', 'the connection is broken')
        wait_until(lambda: not has_guard(lab.director, 'eth0'), 'the guard lifted')
        expect(exchange(established, b'and again') == b'and again', 'the connection is broken')


def test_stopped_weir_gives_the_service_port_back_to_the_kernel():
    with running(options=('--on-exit', 'release')) as lab:
        add_service(lab, 'nat', 80)
        lab.weirs[0].stop()
        try:
            connect(lab.client, VIP[4], 80)
        except ConnectionRefusedError:
            return
        raise AssertionError('a connection was opened')


def test_link_down_and_up_again():
    with running() as lab:
        for server in lab.servers:
            server.start_nginx()
        add_service(lab, 'nat', 80)
        lab.network.ip('link set director0 down')
        lab.network.ip('link set director0 up')

        def answers():
            try:
                return curl(lab.client, url(), seconds=1).startswith('server')
            except LabError:
                return False
        wait_until(answers, 'the service after a link flap')


def test_deleted_interface_costs_only_itself():
    """The interface towards the servers' LAN goes; a service on the other LAN goes on."""
    with running(arms=2) as lab:
        server = lab.servers[0]
        server.start_nginx()
        lab.plug(server, 'eth1', 'second', 'lan0', 0x31)
        server.ip('address add 10.0.0.31/24 dev eth1',
                  f'route replace default via {lan_address(4, 0, 1)}')
        lab.ipvsadm(f'-A -t {VIP[4]}:80 -s rr')
        lab.ipvsadm(f'-a -t {VIP[4]}:80 -r 10.0.0.31:80 -m')
        lab.director.ip('link delete eth1')
        lab.weirs[0].wait_for_output('eth1')
        equal(curl(lab.client, url()).strip(), 'server1', 'answer')
        expect(lab.weirs[0].exit_code is None, 'weir ended')
