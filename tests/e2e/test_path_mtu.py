# SPDX-License-Identifier: Apache-2.0
"""Paths that are narrower behind the first link: the sender is told, through weir."""

import hashlib
import os

from checks import add_service, combinations, running, url, worker_options
from lab import VIP


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
        if got.stdout.split()[0] != digest:
            raise AssertionError(f'the file came back changed from {VIP[family]}')
