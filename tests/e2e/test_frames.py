# SPDX-License-Identifier: Apache-2.0
"""Crafted frames: which of them a director forwards."""

import select
import time

from scapy.config import conf
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from checks import add_service, curl, expect, running, url
from lab import CLIENT, SHARED_MAC, VIP


DIRECTOR_MAC = f'{SHARED_MAC}:10'
FOREIGN_MAC = f'{SHARED_MAC}:99'
ROUTER_MAC = f'{SHARED_MAC}:f0'


def packet_socket(host, interface):
    with host.entered():
        return conf.L2socket(iface=interface)


def syn(mac, source_port):
    return (Ether(dst=mac, src=ROUTER_MAC)
            / IP(src=CLIENT[4], dst=VIP[4])
            / TCP(sport=source_port, dport=80, flags='S', seq=1))


def ports_seen(sockets, last_port, seconds=5.0):
    """The source ports of the SYNs that arrive, up to that of the last one awaited."""
    seen = []
    deadline = time.monotonic() + seconds
    while last_port not in seen:
        left = deadline - time.monotonic()
        expect(left > 0, f'no SYN from port {last_port}; seen: {seen}')
        for ready in select.select(sockets, [], [], left)[0]:
            frame = ready.recv()
            if frame is not None and TCP in frame and frame[TCP].flags == 'S':
                seen.append(frame[TCP].sport)
    return seen


def send_and_watch(lab, *frames):
    """Puts frames on the director's cable; the ports of those that some server gets."""
    watching = [packet_socket(server, 'eth0') for server in lab.servers]
    cable = packet_socket(lab.network, 'director0')
    for frame in frames:
        cable.send(frame)
    seen = ports_seen(watching, frames[-1][TCP].sport)
    for opened in (*watching, cable):
        opened.close()
    return seen


def test_frame_to_a_foreign_mac_is_not_forwarded():
    """What a switch floods is not weir's."""
    with running() as lab:
        add_service(lab, 'nat', 80)
        seen = send_and_watch(lab, syn(FOREIGN_MAC, 1001), syn(DIRECTOR_MAC, 1002))
        expect(1001 not in seen, 'the frame to a foreign MAC was forwarded')


def test_service_without_its_vip_on_the_director_is_silent():
    """A backup director forwards nothing; with the address it starts."""
    with running() as lab:
        for server in lab.servers:
            server.start_nginx()
        add_service(lab, 'nat', 80)
        lab.delete_vip()
        other_service = '-t 10.0.0.1:80'
        lab.ipvsadm(f'-A {other_service} -s rr')
        lab.ipvsadm(f'-a {other_service} -r {lab.servers[0].address()}:80 -m')
        control = syn(DIRECTOR_MAC, 1002)
        control[IP].dst = '10.0.0.1'
        seen = send_and_watch(lab, syn(DIRECTOR_MAC, 1001), control)
        expect(1001 not in seen, 'forwarded although no interface owns the VIP')
        lab.add_vip()
        expect(curl(lab.client, url()).startswith('server'), 'silent although the VIP is back')
