# SPDX-License-Identifier: Apache-2.0
"""A port that filters as a NIC does: only what weir asks for reaches it."""

from checks import add_service, curl, equal, start_weir, url
from lab import EXCEPTION_INTERFACE, VIP, Lab

VIRTUAL_MAC = '00:00:5e:00:01:0a'
VIRTUAL_ADDRESS = '10.0.0.150'


def test_neighbour_discovery_and_virtual_macs():
    """The router asks for the IPv6 VIP by multicast; an address is reached at a virtual MAC."""
    with Lab(servers=1) as lab:
        lab.nics_filter = True
        lab.set_up_servers('nat')
        lab.servers[0].start_nginx()
        start_weir(lab, 'own_port')
        add_service(lab, 'nat', 80, family=6)
        lab.client.run('ping', '-n', '-c', 1, '-w', 5, VIP[6])
        equal(curl(lab.client, url(6)).strip(), 'server1', 'answer')

        lab.director.ip(f'link add virtual link {EXCEPTION_INTERFACE} address {VIRTUAL_MAC} '
                        'type macvlan mode private',
                        f'address add {VIRTUAL_ADDRESS}/32 dev virtual', 'link set virtual up')
        lab.network.ip(f'neighbour replace {VIRTUAL_ADDRESS} lladdr {VIRTUAL_MAC} dev lan0')
        lab.network.run('ping', '-n', '-c', 1, '-i', '0.2', '-w', 5, VIRTUAL_ADDRESS)
