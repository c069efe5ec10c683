# SPDX-License-Identifier: Apache-2.0
"""FullNAT: real servers that know nothing of the director, and still learn who the client is."""

import collections
import hashlib
import os
import socket

from checks import (ECHO_PORT, FORWARD, WIRES, add_service, cases, combinations, connect, counter,
                    curl, datagram_socket, equal, exchange_datagram, expect, receive_line, running,
                    start_echo, url, worker_options)
from lab import CLIENT, LOCAL, ROOT, VIP, lan_address, with_port

EVERY_SERVER_TWICE = {'server1': 2, 'server2': 2, 'server3': 2}
PROXY_PORT = 81
TOA_PORT = 7100
RECEIVE_ERRORS = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}  # IP(V6)_RECVERR


def names(answers):
    return dict(collections.Counter(answers))


def set_client_address(lab, how, port, family=4, protocol='tcp'):
    lab.weirctl('set', 'service', protocol, with_port(VIP[family], port), 'client-address', how)


@combinations(WIRES, (1, 2, 4), (4, 6))
def test_tcp(wire, workers, family):
    with running(wire, 'fullnat', worker_options(workers)) as lab:
        for server in lab.servers:
            server.start_nginx()
        add_service(lab, 'fullnat', 80, 'tcp', family)
        answers = names(curl(lab.client, url(family)).strip() for _ in range(6 * workers))
        equal(set(answers), set(EVERY_SERVER_TWICE), 'servers that answer')
        if workers == 1:
            equal(answers, EVERY_SERVER_TWICE, 'answers of six requests')
        equal(lab.ipvsadm('-Ln').stdout.count(f' {FORWARD["fullnat"]} '), 3, 'servers listed')


@combinations((4, 6), (1, 2))
def test_udp(family, workers):
    with running('af_xdp', 'fullnat', worker_options(workers)) as lab:
        for server in lab.servers:
            start_echo(server, 'fullnat')
        add_service(lab, 'fullnat', ECHO_PORT, 'udp', family)
        for _ in range(6):
            with datagram_socket(lab.client, VIP[family], ECHO_PORT) as sender:
                for size in (1, 500, 1371):
                    exchange_datagram(sender, size)


def test_local_address_that_is_not_the_hosts_is_in_the_log():
    with running('af_xdp', 'fullnat', servers=1) as lab:
        lab.weirctl('add', 'local-address', '10.0.0.250-10.0.0.251')
        lab.weirs[0].wait_for_output('local address 10.0.0.250-10.0.0.251: of its 2 addresses 2',
                                     15.0)
        expect(LOCAL[4][0] not in lab.weirs[0].output(), 'the others are in the log')


@cases(1, 2)
def test_iperf3(workers):
    with running('af_xdp', 'fullnat', worker_options(workers), servers=1) as lab:
        server = lab.servers[0].start('iperf3', '--server', '--forceflush', '--port', 5201)
        server.wait_for_output('listening')
        add_service(lab, 'fullnat', 5201)
        lab.client.run('iperf3', '-c', VIP[4], '-p', 5201, '-n', '50M', '-P', 4)


@combinations(WIRES, (4, 6))
def test_nginx_learns_the_client_by_proxy_protocol(wire, family):
    with running(wire, 'fullnat', servers=1) as lab:
        lab.servers[0].start_nginx()
        add_service(lab, 'fullnat', PROXY_PORT, 'tcp', family)
        set_client_address(lab, 'proxy', PROXY_PORT, family)
        equal(curl(lab.client, url(family, port=PROXY_PORT)).strip(), CLIENT[family],
              'the address that nginx knows')


def test_a_stream_behind_a_proxy_header_is_byte_exact():
    with running('af_xdp', 'fullnat', worker_options(2), servers=1) as lab:
        lab.servers[0].start_nginx()
        data = os.urandom(20_000_000)
        with open(os.path.join(lab.servers[0].web_root(), 'file'), 'wb') as file:
            file.write(data)
        add_service(lab, 'fullnat', PROXY_PORT)
        set_client_address(lab, 'proxy', PROXY_PORT)
        got = lab.client.run('sh', '-c', f'curl -sS -m 60 {url(4, "file", PROXY_PORT)} | sha256sum')
        equal(got.stdout.split()[0], hashlib.sha256(data).hexdigest(), 'digest of 20 MB')


@cases(4, 6)
def test_a_refused_datagram_comes_back_without_its_proxy_header(family):
    """The client's kernel has what an ICMP error quotes behind the UDP header."""
    with running('af_xdp', 'fullnat', servers=1) as lab:
        add_service(lab, 'fullnat', PROXY_PORT, 'udp', family)
        set_client_address(lab, 'proxy', PROXY_PORT, family, 'udp')
        with datagram_socket(lab.client, VIP[family], PROXY_PORT) as sender:
            sender.setsockopt(*RECEIVE_ERRORS[family], 1)
            data = os.urandom(100)
            sender.send(data)
            equal(sender.recvmsg(2048, 0, socket.MSG_ERRQUEUE)[0], data, 'the datagram')


@cases(4, 6)
def test_a_server_reads_the_client_from_the_option(family):
    with running('af_xdp', 'fullnat', servers=1) as lab:
        server = lab.servers[0].start(
            '/usr/bin/python3', os.path.join(ROOT, 'tests', 'support', 'toa_server.py'), TOA_PORT,
            *lab.servers[0].service_addresses('fullnat'))
        server.wait_for_output('ready')
        add_service(lab, 'fullnat', TOA_PORT, 'tcp', family)
        set_client_address(lab, 'toa', TOA_PORT, family)
        with connect(lab.client, VIP[family], TOA_PORT) as stream:
            equal(receive_line(stream), f'{CLIENT[family]} {stream.getsockname()[1]}',
                  'what the server reads from the SYN')


@combinations(WIRES, ((6, 4), (4, 6)))
def test_servers_of_the_other_family(wire, families):
    family, real_family = families
    with running(wire, 'fullnat') as lab:
        for server in lab.servers:
            server.start_nginx()
        add_service(lab, 'fullnat', 80, 'tcp', family, real_family)
        equal(names(curl(lab.client, url(family)).strip() for _ in range(6)), EVERY_SERVER_TWICE,
              'answers of six requests')


def test_the_director_reaches_a_real_server_itself():
    """Its own connections to the service port, as health checks make them."""
    with running('af_xdp', 'fullnat', servers=1) as lab:
        lab.servers[0].start_nginx()
        add_service(lab, 'fullnat', 80)
        equal(curl(lab.client, url()).strip(), 'server1', 'the answer to the client')
        own = f'http://{lan_address(4, 0, 11)}/'
        equal(curl(lab.director, own).strip(), 'server1', 'the answer to the director')


def test_without_local_addresses_the_server_is_refused():
    with running('af_xdp', 'dr', servers=1) as lab:
        lab.ipvsadm(f'-A -t {with_port(VIP[4], 80)} -s rr')
        real = f'{lan_address(4, 0, 11)}:80'
        refused = lab.ipvsadm(f'-a -t {with_port(VIP[4], 80)} -r {real} --fullnat', check=False)
        expect(refused.returncode != 0, 'a fullnat server without local addresses is accepted')
        expect('add local-address' in refused.stderr, f'the remedy is missing: {refused.stderr}')
        equal(counter(lab, 'fullnat_to_server'), 0, 'packets')
        expect(LOCAL[4][0] not in lab.weirctl('show', 'local-addresses').stdout, 'a pool is there')
