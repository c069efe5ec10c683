# SPDX-License-Identifier: Apache-2.0
"""What is not a service's stays with the director's kernel."""

import os

from checks import (FLAG, WIRES, add_service, combinations, connect, curl, equal, exchange, expect,
                    receive_line, running, start_weir, url)
from lab import CLIENT, ROOT, VIP, lan_address, with_port

SSH = 22


def start_echo_on_director(lab):
    """Stands for the director's SSH."""
    process = lab.director.start(
        '/usr/bin/python3', os.path.join(ROOT, 'tests', 'support', 'echo_server.py'), 'director',
        SSH, *(lan_address(family, 0, 1) for family in (4, 6)))
    process.wait_for_output('ready')


@combinations(WIRES, (4, 6))
def test_vip_answers_ping(wire, family):
    with running(wire) as lab:
        add_service(lab, 'nat', 80, 'tcp', family)
        lab.client.run('ping', '-n', '-c', 3, '-i', '0.2', '-W', 2, VIP[family])


@combinations(WIRES, (4, 6))
def test_directors_own_address_takes_tcp(wire, family):
    with running(wire) as lab:
        start_echo_on_director(lab)
        add_service(lab, 'nat', 80, 'tcp', family)
        with connect(lab.client, lan_address(family, 0, 1), SSH) as stream:
            equal(receive_line(stream), 'director', 'greeting')
            data = os.urandom(100_000)
            expect(exchange(stream, data) == data, 'the answer differs')


@combinations(WIRES, (4, 6))
def test_director_reaches_a_real_servers_service_port(wire, family):
    """As a health check does, while the port serves a nat service, which works all the while."""
    with running(wire) as lab:
        for server in lab.servers:
            server.start_nginx()
        add_service(lab, 'nat', 80, 'tcp', family)
        for server in lab.servers:
            real = with_port(server.address(family), 80)
            equal(curl(lab.director, f'http://{real}/').strip(), server.role, f'answer of {real}')
        expect(curl(lab.client, url(family)).startswith('server'), 'the service does not answer')


def hops(host, *arguments):
    """The address of each hop of a traceroute, '*' for none."""
    output = host.run('traceroute', '-n', '-q', 1, '-w', 2, '-m', 6, *arguments).stdout
    return [line.split()[1] for line in output.splitlines()[1:]]


@combinations(WIRES, (4, 6))
def test_traceroute_to_a_service_shows_each_hop(wire, family):
    with running(wire) as lab:
        for server in lab.servers:
            server.start_nginx()
        add_service(lab, 'nat', 80, 'tcp', family)
        route = hops(lab.client, f'-{family}', '-T', '-p', 80, VIP[family])
        router = CLIENT[family][:-1] + '1'
        director = (lan_address(family, 0, 1), VIP[family])
        equal(len(route), 3, f'hops of {route}')
        expect(route[0] == router and route[1] in director and route[2] == VIP[family],
               f'the route is {route}')


@combinations(WIRES, (4, 6))
def test_traceroute_through_the_director_shows_it(wire, family):
    with running(wire) as lab:
        add_service(lab, 'nat', 80, 'tcp', family)
        route = hops(lab.servers[0], f'-{family}', CLIENT[family])
        equal(route[1:], [lan_address(family, 0, 254), CLIENT[family]], 'the route from hop 2')
        expect(route[0] in (lan_address(family, 0, 1), VIP[family]), f'the route is {route}')


RULES = """
add table inet watch
add counter inet watch here
add counter inet watch elsewhere
add chain inet watch input { type filter hook input priority 0; }
add rule inet watch input iifname "eth0" tcp dport 80 counter name "here"
add rule inet watch input iifname "weir*" counter name "elsewhere"
"""


def end_by_another_weir(lab, stream):
    """A weir that does not know the connection leaves its next segment to the kernel."""
    lab.weirs[0].stop()
    lab.delete_vip()
    start_weir(lab, 'af_xdp')
    add_service(lab, 'nat', 80)
    stream.settimeout(30.0)  # silence, until the guard is lifted: the client repeats
    stream.sendall(b'GET / HTTP/1.0\r\n\r\n')
    try:
        expect(not stream.recv(1), 'an answer came')
    except ConnectionResetError:
        pass


def test_what_is_handed_back_enters_where_it_came_from():
    """Rules by interface see it, and strict reverse path filtering lets it pass."""
    with running() as lab:
        for server in lab.servers:
            server.start_nginx()
        lab.director.sysctl({'net.ipv4.conf.all.rp_filter': 1, 'net.ipv4.conf.eth0.rp_filter': 1})
        lab.director.run('nft', RULES)
        add_service(lab, 'nat', 80)
        with connect(lab.client, VIP[4], 80) as stream:
            lab.ipvsadm('-C')
            end_by_another_weir(lab, stream)
        seen = lab.director.run('nft', 'list', 'counters').stdout
        here, elsewhere = (int(text.split('packets ')[1].split()[0])
                           for text in seen.split('counter ')[1:])
        expect(here > 0, 'eth0 has not seen the segment')
        equal(elsewhere, 0, 'packets that entered elsewhere')


def test_segment_of_no_connection_is_answered_by_the_kernel():
    """A connection that weir knows no longer ends with RST, so that its client opens another."""
    with running() as lab:
        for server in lab.servers:
            server.start_nginx()
        add_service(lab, 'nat', 80)
        with connect(lab.client, VIP[4], 80) as stream:
            end_by_another_weir(lab, stream)
