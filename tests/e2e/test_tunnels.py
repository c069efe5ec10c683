# SPDX-License-Identifier: Apache-2.0
"""GRE and GUE, with and without checksums: IPIP is everywhere else."""

import os
import re

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Raw

from checks import (ECHO_PORT, add_service, cases, combinations, curl, datagram_socket, equal,
                    exchange_datagram, running, start_echo, url)
from lab import CLIENT, GUE_PORT, SHARED_MAC, VIP, Lab, lan_address, wait_until
from test_bulk import MEGABYTE, UPLOAD_PORT, upload, write_random
from test_frames import DIRECTOR_MAC, packet_socket

GUE = f'--tun-type gue --tun-port {GUE_PORT}'
OPTIONS = {'gre': '--tun-type gre --tun-nocsum', 'gre+csum': '--tun-type gre --tun-csum',
           'gue': f'{GUE} --tun-nocsum', 'gue+csum': f'{GUE} --tun-csum',
           'gue+remcsum': f'{GUE} --tun-remcsum'}
# In front of the inner packet, beside the outer IP header.
HEADERS = {'gre': 4, 'gre+csum': 8, 'gue': 12, 'gue+csum': 12, 'gue+remcsum': 12}
IP_HEADER = {4: 20, 6: 40}
LINK = 1500
SERVER_MAC = f'{SHARED_MAC}:21'


def path_mtu(host, address):
    """What the host has been told of the path to the address."""
    found = re.search(r'\bmtu (\d+)', host.run('ip', 'route', 'get', address).stdout)
    return int(found[1]) if found else None


def check_tunnel(lab, tunnel, family, source, original):
    for port, protocol in ((80, 'tcp'), (ECHO_PORT, 'udp'), (UPLOAD_PORT, 'tcp')):
        add_service(lab, 'tun', port, protocol, family, tunnel=OPTIONS[tunnel])
    equal(curl(lab.client, url(family)).strip(), 'server1', 'who answers')
    largest = LINK - IP_HEADER[family] - HEADERS[tunnel]
    with datagram_socket(lab.client, VIP[family], ECHO_PORT) as sender:
        for size in (1, 2, 500, largest - IP_HEADER[family] - 8):
            exchange_datagram(sender, size)
    upload(lab, 'tun', family, source, original)
    equal(path_mtu(lab.client, VIP[family]), largest, 'path MTU that the client has learned')


@cases(*(('af_xdp', tunnel) for tunnel in OPTIONS), ('own_port', 'gre+csum'),
       ('own_port', 'gue+csum'))
def test_tunnel(wire, tunnel):
    """Requests, datagrams, and 20 MB in segments that are too large for the tunnel at first."""
    with running(wire, 'tun', servers=1) as lab:
        server = lab.servers[0]
        if 'csum' in tunnel:
            server.require_tunnel_checksums()
        lab.set_client_mtu(LINK)
        server.start_nginx()
        start_echo(server, 'tun')
        source = os.path.join(lab.directory, 'data')
        original = write_random(source, 20 * MEGABYTE)
        for family in (4, 6):
            check_tunnel(lab, tunnel, family, source, original)


def dropped_frames(server):
    statistics = server.run('ethtool', '-S', 'eth0').stdout
    return sum(int(number) for number in re.findall(r'xdp_drops: (\d+)', statistics))


def tunnelled(server, family, header, port):
    """A client's datagram as the director sends it."""
    ip = {4: IP, 6: IPv6}[family]
    inner = ip(src=CLIENT[family], dst=VIP[family]) / UDP(sport=port, dport=ECHO_PORT) / b'hello'
    outer = ip(src=lan_address(family, 0, 1), dst=server.address(family))
    return bytes(Ether(src=DIRECTOR_MAC, dst=SERVER_MAC) / outer / header / bytes(inner))


@combinations(('gre', 'gue'), (4, 6))
def test_the_server_drops_a_wrong_or_missing_checksum(kind, family):
    """What the cases above rely on, without a director."""
    gue = Raw(bytes([0, {4: 4, 6: 41}[family], 0, 0]))
    gre = {4: 0x0800, 6: 0x86dd}[family]
    right, missing = {
        'gre': (GRE(chksum_present=1, proto=gre), GRE(proto=gre)),
        'gue': (UDP(dport=GUE_PORT) / gue, UDP(dport=GUE_PORT, chksum=0) / gue)}[kind]
    with Lab(servers=1) as lab, datagram_socket(lab.client, VIP[family], ECHO_PORT) as client:
        server = lab.servers[0]
        server.set_up('tun')
        server.require_tunnel_checksums()
        start_echo(server, 'tun')
        cable = packet_socket(lab.director, 'eth0')
        port = client.getsockname()[1]
        good = tunnelled(server, family, right, port)
        cable.send(good)
        equal(client.recv(100), b'server1 hello', 'the answer')
        for bad in (good[:-1] + b'p', tunnelled(server, family, missing, port)):
            before = dropped_frames(server)
            cable.send(bad)
            wait_until(lambda: dropped_frames(server) == before + 1, 'a frame to be dropped')
        cable.close()
