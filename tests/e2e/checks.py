# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: cases, expectations, and a lab with a service in it."""

import contextlib
import itertools
import os
import socket

from lab import OFFLOADS, ROOT, VIP, Lab, wait_until, with_port

FLAG = {'nat': '-m', 'dr': '-g', 'tun': '-i', 'fullnat': '--fullnat'}
FORWARD = {'nat': 'Masq', 'dr': 'Route', 'tun': 'Tunnel', 'fullnat': 'FullNAT'}
# AF_XDP on an interface of the kernel's; a port that is DPDK's, with its exception interface.
WIRES = ('af_xdp', 'own_port')
INTERFACE = {'af_xdp': 'eth0', 'own_port': 'weir0', 'memif': 'weir0'}
SMALL_TABLE = ('--connections-per-worker', '20000')
ECHO_PORT = 7000


def cases(*rows):
    """Runs the test once for each row, its arguments."""
    def mark(function):
        function.cases = [row if isinstance(row, tuple) else (row,) for row in rows]
        return function
    return mark


def alone(function):
    """For a test that looks at the whole machine, or keeps its CPUs busy: others wait for it."""
    function.alone = True
    return function


def combinations(*columns):
    return cases(*itertools.product(*columns))


def expect(condition, message):
    if not condition:
        raise AssertionError(message)


def equal(got, wanted, what):
    expect(got == wanted, f'{what}: got {got!r}, wanted {wanted!r}')


def worker_options(workers):
    """Any number of workers on two cores; the control thread shares the first."""
    lcores = ','.join(['0@0', *(f'{worker + 1}@{worker % 2}' for worker in range(workers))])
    return ('--workers', str(workers), '--lcores', lcores)


def start_weir(lab, wire, *options):
    start = {'af_xdp': lab.start_weir_on_kernel_ports, 'own_port': lab.start_weir_on_own_port,
             'memif': lab.start_weir_on_memif}
    table = () if SMALL_TABLE[0] in options else SMALL_TABLE
    return start[wire](*table, *options)


def start_echo(server, mode='nat', port=ECHO_PORT):
    process = server.start('/usr/bin/python3',
                           os.path.join(ROOT, 'tests', 'support', 'echo_server.py'),
                           server.role, port, *server.service_addresses(mode))
    process.wait_for_output('ready')
    return process


def add_service(lab, mode, port, protocol='tcp', family=4, real_family=None, scheduler='rr',
                tunnel=''):
    """The service VIP:port with every server of the lab, as ipvsadm makes it."""
    service = f'--{protocol}-service {with_port(VIP[family], port)}'
    lab.ipvsadm(f'-A {service} -s {scheduler}')
    for server in lab.servers:
        real = with_port(server.address(real_family or family), port)
        lab.ipvsadm(f'-a {service} -r {real} {FLAG[mode]} {tunnel}')
    # weir learns of the host's addresses from the kernel, a moment after they are added.
    wait_until(lambda: 'takes no traffic' not in lab.weirctl('show', 'services').stdout,
               'the VIP in weir')
    return service


@contextlib.contextmanager
def running(wire='af_xdp', mode='nat', options=(), arms=1, servers=3, offloads=OFFLOADS):
    """A lab with weir in it and its servers set up; no service yet."""
    with Lab(servers=servers, arms=arms, offloads=offloads) as lab:
        lab.set_up_servers(mode)
        start_weir(lab, wire, *options)
        if mode == 'fullnat':
            lab.add_local_addresses(INTERFACE[wire])
        yield lab


def url(family=4, path='', port=80):
    return f'http://{with_port(VIP[family], port)}/{path}'


def curl(host, *arguments, seconds=5):
    """What curl prints; it fails as curl does."""
    return host.run('curl', '-sS', '-m', seconds, *arguments).stdout


def connect(host, address, port, seconds=5.0):
    """A TCP connection from a host of the lab."""
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    with host.entered():
        stream = socket.socket(family, socket.SOCK_STREAM)
    stream.settimeout(seconds)
    stream.connect((address, port))
    return stream


def datagram_socket(host, address, port, seconds=5.0):
    """A connected UDP socket of a host of the lab."""
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    with host.entered():
        sender = socket.socket(family, socket.SOCK_DGRAM)
    sender.settimeout(seconds)
    sender.connect((address, port))
    return sender


def receive_line(stream):
    line = b''
    while not line.endswith(b'\n'):
        byte = stream.recv(1)
        expect(byte, 'the connection ended in the middle of a line')
        line += byte
    return line[:-1].decode()


def exchange(stream, data):
    """Sends data to an echo server and returns as many bytes of its answer."""
    stream.sendall(data)
    answer = b''
    while len(answer) < len(data):
        part = stream.recv(len(data) - len(answer))
        expect(part, f'the connection ended after {len(answer)} of {len(data)} bytes')
        answer += part
    return answer


def exchange_datagram(sender, size):
    """Sends a datagram to an echo server; the name of the server that gives it back."""
    data = os.urandom(size)
    sender.send(data)
    name, _, answer = sender.recv(65536).partition(b' ')
    expect(answer == data, f'a datagram of {size} bytes came back changed')
    return name.decode()


def counter(lab, name):
    """One counter of `weirctl show counters`."""
    for line in lab.weirctl('show', 'counters').stdout.splitlines():
        words = line.split()
        if words and words[0] == name:
            return int(words[-1])
    raise AssertionError(f'weirctl show counters has no {name}')
