# SPDX-License-Identifier: Apache-2.0
"""Paths that are narrower behind the first link: the sender is told, through weir."""

import hashlib
import os
import threading

from checks import (ECHO_PORT, add_service, combinations, connect, equal, expect, receive_line,
                    running, start_echo, url, worker_options)
from lab import VIP, host_length, lan_address


def serve_file(lab, size):
    data = os.urandom(size)
    for server in lab.servers:
        server.start_nginx()
        with open(os.path.join(server.web_root(), 'file'), 'wb') as file:
            file.write(data)
    return hashlib.sha256(data).hexdigest()


@combinations(('nat', 'fullnat'), (4, 6), (1, 2))
def test_a_download_recovers_behind_a_narrow_router(mode, family, workers):
    """The router's error quotes a packet from the VIP; the real server must hear of it."""
    with running('af_xdp', mode, worker_options(workers), servers=1) as lab:
        digest = serve_file(lab, 3_000_000)
        add_service(lab, mode, 80, 'tcp', family)
        # Only the router's side is narrow: the client goes on offering large segments.
        lab.network.ip('link set client mtu 1400')
        got = lab.client.run('sh', '-c', f'curl -sS -m 30 {url(family, "file")} | sha256sum')
        equal(got.stdout.split()[0], digest, 'digest of the file')


@combinations((4, 6), (1, 2))
def test_an_upload_recovers_behind_a_narrow_tunnel(family, workers):
    """The router's error quotes a tunnel's packet from the director; the client must hear of it."""
    with running('af_xdp', 'tun', worker_options(workers), servers=1) as lab:
        server = lab.servers[0]
        start_echo(server, 'tun')
        add_service(lab, 'tun', ECHO_PORT, 'tcp', family)
        router = lan_address(family, 0, 254)
        real = f'{server.address(family)}/{host_length(family)}'
        lab.network.ip(f'route add {real} dev lan0 mtu lock 1400')
        lab.director.ip(f'route add {real} via {router}')
        with connect(lab.client, VIP[family], ECHO_PORT, seconds=20.0) as stream:
            data = os.urandom(300_000)
            sender = threading.Thread(target=stream.sendall, args=(data,))
            sender.start()
            equal(receive_line(stream), server.role, 'the greeting')
            answer = b''
            while len(answer) < len(data):
                answer += stream.recv(65536)
            sender.join()
            expect(answer == data, 'the data came back changed')
