# SPDX-License-Identifier: Apache-2.0
"""100 MB through the director, byte for byte."""

import hashlib
import os

from checks import WIRES, add_service, combinations, expect, running, url, worker_options
from lab import VIP, with_port

MEGABYTE = 1_000_000
SIZE = 100 * MEGABYTE
UPLOAD_PORT = 9000


def digest(*paths):
    whole = hashlib.sha256()
    for path in paths:
        with open(path, 'rb') as file:
            while part := file.read(1 << 20):
                whole.update(part)
    return whole.hexdigest()


def write_random(path, size=SIZE):
    with open(path, 'wb') as file:
        for _ in range(size // MEGABYTE):
            file.write(os.urandom(MEGABYTE))
    return digest(path)


def download(lab, family, original):
    """In four pieces by four connections at once, so that several workers have their share."""
    pieces = 4
    paths, clients = [], []
    for piece in range(pieces):
        paths.append(os.path.join(lab.directory, f'piece{piece}'))
        first = piece * SIZE // pieces
        clients.append(lab.client.start(
            'curl', '-sS', '-m', 60, '-r', f'{first}-{first + SIZE // pieces - 1}',
            '-o', paths[-1], url(family, 'data')))
    for client in clients:
        expect(client.wait(70) == 0, f'curl failed: {client.output()}')
    expect(digest(*paths) == original, 'the download differs from the file')


def upload(lab, mode, family, source, original):
    target = os.path.join(lab.directory, 'uploaded')
    server = lab.servers[0]
    address = server.service_addresses(mode)[0 if family == 4 else 1]
    receiver = server.start(
        'socat', '-u', f'TCP{family}-LISTEN:{UPLOAD_PORT},bind={with_port(address, "")[:-1]}',
        f'CREATE:{target}')
    lab.client.run('socat', '-u', f'FILE:{source}',
                   f'TCP{family}:{with_port(VIP[family], UPLOAD_PORT)},retry=100,interval=0.1')
    expect(receiver.wait(60) == 0, f'socat failed: {receiver.output()}')
    expect(digest(target) == original, 'the upload differs from the file')


@combinations(WIRES, ('nat', 'dr', 'tun'), (1, 2, 4))
def test_100_megabytes(wire, mode, workers):
    family = 6 if workers == 2 else 4
    with running(wire, mode, worker_options(workers), servers=1) as lab:
        server = lab.servers[0]
        server.start_nginx()
        source = os.path.join(server.web_root(), 'data')
        original = write_random(source)
        add_service(lab, mode, 80, 'tcp', family)
        add_service(lab, mode, UPLOAD_PORT, 'tcp', family)
        download(lab, family, original)
        upload(lab, mode, family, source, original)
