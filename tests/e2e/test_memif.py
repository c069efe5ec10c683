# SPDX-License-Identifier: Apache-2.0
"""A port that is another process's memory (net_memif): real connections over two DPDK processes."""

import filecmp
import os
import signal

from checks import add_service, cases, curl, equal, expect, running, url

SIZE = 20_000_000


def wait_for_peer(lab):
    """weir's end has no line to say so: a ping gets through as soon as the two are connected."""
    lab.client.run('ping', '-n', '-c', 1, '-i', 0.2, '-w', 10, '10.0.0.1')


def check_download(lab):
    server = lab.servers[0]
    original = os.path.join(server.web_root(), 'data')
    with open(original, 'wb') as file:
        file.write(os.urandom(SIZE))
    copy = os.path.join(lab.directory, 'copy')
    curl(lab.client, '-o', copy, url(path='data'), seconds=60)
    expect(filecmp.cmp(original, copy, shallow=False), 'the download differs from the file')


@cases('nat', 'dr')
def test_transfer(mode):
    with running('memif', mode, servers=1) as lab:
        lab.servers[0].start_nginx()
        add_service(lab, mode, 80)
        wait_for_peer(lab)
        check_download(lab)
        equal(lab.weirs[0].stop(), 0, 'exit code')
        expect(not os.path.exists(lab.memif_socket), 'the socket of memif is left')


def test_the_other_process_dies_and_comes_back():
    with running('memif', servers=1) as lab:
        lab.servers[0].start_nginx()
        add_service(lab, 'nat', 80)
        wait_for_peer(lab)
        equal(curl(lab.client, url()).strip(), 'server1', 'answer')
        lab.network.processes[-1].stop(signal.SIGKILL)
        lab.start_memif_peer()
        lab.plug_wire()
        wait_for_peer(lab)
        equal(curl(lab.client, url()).strip(), 'server1', 'answer of the second time')
        expect(lab.weirs[0].exit_code is None, 'weir ended')
