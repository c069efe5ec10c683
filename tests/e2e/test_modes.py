# SPDX-License-Identifier: Apache-2.0
"""Every way of forwarding, by real clients and servers."""

import collections

from checks import (ECHO_PORT, FORWARD, WIRES, add_service, cases, combinations, curl,
                    datagram_socket, equal, exchange_datagram, expect, running, start_echo, url)
from lab import VIP, wait_until, with_port

MODES = ('nat', 'dr', 'tun')
EVERY_SERVER_TWICE = {'server1': 2, 'server2': 2, 'server3': 2}


def names(answers):
    return dict(collections.Counter(answers))


def check_listing(lab, mode):
    """Three connections or more went in; replies pass weir in nat only."""
    listing = lab.ipvsadm('-Ln').stdout
    equal(listing.count(f' {FORWARD[mode]} '), 3, f'servers listed as {FORWARD[mode]}')
    row = lab.ipvsadm('-Ln --stats --exact').stdout.splitlines()[3].split()
    connections, packets_in, packets_out = (int(word) for word in row[2:5])
    expect(connections >= 6, f'--stats counts {connections} connections')
    expect(packets_in > connections / 2, f'--stats counts {packets_in} packets in')
    equal(packets_out > 0, mode == 'nat', 'packets out are counted')


def check_workers(lab):
    """What the one worker has done is what its service counts, once the last FINs are through."""
    def agree():
        titles, worker = map(str.split, lab.weirctl('show', 'workers').stdout.splitlines())
        row = dict(zip(titles, worker))
        stats = lab.ipvsadm('-Ln --stats --exact').stdout.splitlines()[3].split()
        return row['Worker'] == '0' and stats[2:5] == [row['Conns'], row['InPkts'], row['OutPkts']]
    wait_until(agree, 'a worker that counts what its service does')


@combinations(WIRES, MODES, (4, 6))
def test_tcp(wire, mode, family):
    with running(wire, mode) as lab:
        for server in lab.servers:
            server.start_nginx()
        add_service(lab, mode, 80, 'tcp', family)
        equal(names(curl(lab.client, url(family)).strip() for _ in range(6)), EVERY_SERVER_TWICE,
              'answers of six requests')
        check_listing(lab, mode)
        check_workers(lab)


def six_datagrams(lab, family):
    """By six clients at once: socat cannot know that no further answer comes, and waits."""
    address = f'UDP{family}:{with_port(VIP[family], ECHO_PORT)}'
    clients = [lab.client.start('sh', '-c', f'printf hello | socat -t 2 - {address}')
               for _ in range(6)]
    for client in clients:
        client.wait()
    return [client.output() for client in clients]


def exchange_datagrams(lab, family):
    with datagram_socket(lab.client, VIP[family], ECHO_PORT) as sender:
        for size in range(1, 1372, 5):
            exchange_datagram(sender, size)


@combinations(WIRES, MODES, (4, 6))
def test_udp(wire, mode, family):
    with running(wire, mode) as lab:
        for server in lab.servers:
            start_echo(server, mode)
        add_service(lab, mode, ECHO_PORT, 'udp', family)
        answers = six_datagrams(lab, family)
        expect(all(answer.endswith(' hello') for answer in answers), f'answers: {answers}')
        equal(names(answer.split()[0] for answer in answers), EVERY_SERVER_TWICE,
              'answers of six clients')
        check_listing(lab, mode)
        exchange_datagrams(lab, family)


@cases((4, 6), (6, 4))
def test_tunnel_of_the_other_family(family, real_family):
    with running('af_xdp', 'tun') as lab:
        for server in lab.servers:
            server.start_nginx()
        add_service(lab, 'tun', 80, 'tcp', family, real_family)
        equal(names(curl(lab.client, url(family)).strip() for _ in range(6)), EVERY_SERVER_TWICE,
              'answers of six requests')


@combinations(MODES, (4, 6))
def test_two_armed(mode, family):
    with running('af_xdp', mode, arms=2) as lab:
        for server in lab.servers:
            server.start_nginx()
        add_service(lab, mode, 80, 'tcp', family)
        equal(names(curl(lab.client, url(family)).strip() for _ in range(6)), EVERY_SERVER_TWICE,
              'answers of six requests')


@cases(*MODES)
def test_iperf3(mode):
    """TCP and UDP through one pair of services, to one server, as iperf3 wants it."""
    with running('af_xdp', mode, servers=1) as lab:
        server = lab.servers[0].start('iperf3', '--server', '--forceflush', '--port', 5201,
                                      '--bind', lab.servers[0].service_addresses(mode)[0])
        server.wait_for_output('listening')
        for protocol in ('tcp', 'udp'):
            add_service(lab, mode, 5201, protocol)
        lab.client.run('iperf3', '-c', VIP[4], '-p', 5201, '-n', '20M')
        server.wait_for_output('receiver')
        lab.client.run('iperf3', '-c', VIP[4], '-p', 5201, '-u', '-b', '20M', '-n', '2M',
                       '-l', 1200)
