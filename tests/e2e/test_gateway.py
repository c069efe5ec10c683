# SPDX-License-Identifier: Apache-2.0
"""The director as the real servers' gateway: what they start themselves takes the kernel's way."""

from checks import add_service, cases, curl, equal, running, url
from lab import CLIENT, lan_address, with_port


NFT = f"""
add table ip translation
add chain ip translation out {{ type nat hook postrouting priority 100; }}
add rule ip translation out ip daddr {CLIENT[4]} masquerade
"""


def serve_address_of_peer(lab):
    """On the client: answers with the address that it sees."""
    program = ('import http.server\n'
               'class Peer(http.server.BaseHTTPRequestHandler):\n'
               '    def do_GET(self):\n'
               '        self.send_response(200)\n'
               '        self.end_headers()\n'
               '        self.wfile.write(self.client_address[0].encode())\n'
               'server = http.server.HTTPServer(("", 8000), Peer)\n'
               'print("ready", flush=True)\n'
               'server.serve_forever()\n')
    process = lab.client.start('/usr/bin/python3', '-c', program)
    process.wait_for_output('ready')


def check_service(lab):
    answers = {curl(lab.client, url()).strip() for _ in range(3)}
    equal(answers, {server.role for server in lab.servers}, 'servers that answer')


@cases('routed', 'translated')
def test_real_servers_reach_the_world(how):
    with running('af_xdp', 'nat') as lab:
        for server in lab.servers:
            server.start_nginx()
        add_service(lab, 'nat', 80)
        serve_address_of_peer(lab)
        if how == 'translated':
            lab.director.run('nft', NFT)
        check_service(lab)
        for server in lab.servers:
            seen = curl(server, f'http://{with_port(CLIENT[4], 8000)}/')
            wanted = server.address(4) if how == 'routed' else lan_address(4, 0, 1)
            equal(seen, wanted, 'the address that the world sees')
        check_service(lab)
