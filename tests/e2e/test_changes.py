# SPDX-License-Identifier: Apache-2.0
"""Real servers that come, change weight and go while connections transfer."""

import asyncio
import os
import random
import socket
import threading

from checks import (ECHO_PORT, add_service, alone, combinations, connect, counter, expect,
                    receive_line, running, start_echo, worker_options)
from lab import ROOT, VIP, wait_until

CONNECTIONS = 2000
CHANGES = 1000
LASTING, COMING_AND_GOING = 6, 6  # real servers of each kind
SEED = 7


class Client:
    """One connection that sends a block, waits for its echo, and starts over until told to end."""

    def __init__(self):
        self.server = None
        self.exchanges = 0
        self.error = None

    async def talk(self, sock, end):
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(sock, (VIP[4], ECHO_PORT))
            reader, writer = await asyncio.open_connection(sock=sock)
            self.server = (await reader.readline()).decode().strip()
            block = os.urandom(512)
            while not end.is_set():
                writer.write(block)
                expect(await reader.readexactly(len(block)) == block, 'a block came back changed')
                self.exchanges += 1
                await asyncio.sleep(random.random())
            writer.close()
        except (OSError, AssertionError, asyncio.IncompleteReadError) as error:
            self.error = error


def server_addresses():
    """Three hosts stand for all real servers, with four addresses each."""
    return [f'10.0.0.{40 + index}' for index in range(LASTING + COMING_AND_GOING)]


def start_servers(lab):
    for index, address in enumerate(server_addresses()):
        host = lab.servers[index % len(lab.servers)]
        host.ip(f'address add {address}/24 dev eth0')
        host.start('/usr/bin/python3', os.path.join(ROOT, 'tests', 'support', 'echo_server.py'),
                   address, ECHO_PORT, address).wait_for_output('ready')


def change_at_random(lab, service):
    """Weights of all, and removal and return of the second half; at the end all are there."""
    chance = random.Random(SEED)
    addresses = server_addresses()
    absent = set()

    def real(address):
        return f'-r {address}:{ECHO_PORT} -m'
    for _ in range(CHANGES):
        address = chance.choice(addresses)
        weight = chance.randint(1, 9)
        if address in absent:
            absent.remove(address)
            lab.ipvsadm(f'-a {service} {real(address)} -w {weight}')
        elif address in addresses[LASTING:] and chance.random() < 0.5:
            absent.add(address)
            lab.ipvsadm(f'-d {service} -r {address}:{ECHO_PORT}')
        else:
            lab.ipvsadm(f'-e {service} {real(address)} -w {weight}')
    for address in absent:
        lab.ipvsadm(f'-a {service} {real(address)}')


async def everyone(condition, clients, what, seconds):
    """Waits until condition(client) holds for every client; an error of one ends it at once."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        broken = [(client.server, repr(client.error)) for client in clients if client.error]
        expect(not broken, f'{len(broken)} connections broke {what}: {broken[:5]}')
        waiting = [client for client in clients if not condition(client)]
        if not waiting:
            return
        expect(asyncio.get_running_loop().time() < deadline,
               f'{len(waiting)} connections stand still {what}, to '
               f'{sorted({str(client.server) for client in waiting})}')
        await asyncio.sleep(0.1)


async def transfer_while(change, lab):
    end = asyncio.Event()
    clients = [Client() for _ in range(CONNECTIONS)]
    with lab.client.entered():
        sockets = [socket.socket() for _ in clients]
    for sock in sockets:
        sock.setblocking(False)
    tasks = []
    for client, sock in zip(clients, sockets):
        tasks.append(asyncio.create_task(client.talk(sock, end)))
        if len(tasks) % 50 == 0:
            await asyncio.sleep(0.02)
    await everyone(lambda client: client.exchanges > 0, clients, 'before the changes', 30)
    await asyncio.to_thread(change)
    before = {client: client.exchanges for client in clients}
    # A removed server's packets were dropped; TCP repeats them after a pause that has doubled
    # each time, and the server that is back answers on the same connection.
    await everyone(lambda client: client.exchanges > before[client], clients, 'after the changes',
                   60)
    end.set()
    await asyncio.gather(*tasks)
    broken = [repr(client.error) for client in clients if client.error]
    expect(not broken, f'{len(broken)} connections broke at the end: {broken[:5]}')


@alone  # hundreds of connections against the clock
def test_1000_changes_break_no_connection():
    with running(options=worker_options(2)) as lab:
        start_servers(lab)
        service = f'-t {VIP[4]}:{ECHO_PORT}'
        lab.ipvsadm(f'-A {service} -s wrr')
        for address in server_addresses():
            lab.ipvsadm(f'-a {service} -r {address}:{ECHO_PORT} -m')
        asyncio.run(transfer_while(lambda: change_at_random(lab, service), lab))
        expect(threading.active_count() < 10, 'threads are left')


def established(host):
    """The TCP connections of one host to its echo server."""
    return host.run('ss', '-Htn', 'state', 'established', f'sport = :{ECHO_PORT}').stdout


@combinations(('nat', 'dr', 'fullnat'), (4, 6))
def test_both_ends_of_a_removed_servers_connections_are_reset(mode, family):
    """Though nobody sends anything."""
    with running(mode=mode, servers=1) as lab:
        [server] = lab.servers
        start_echo(server, mode)
        service = add_service(lab, mode, ECHO_PORT, family=family)
        lab.weirctl('set', 'service', 'tcp', service.split()[1], 'gone-server', 'reset')
        streams = [connect(lab.client, VIP[family], ECHO_PORT) for _ in range(20)]
        for stream in streams:
            receive_line(stream)
        expect(established(server), 'the server has no connections')
        lab.ipvsadm(f'-D {service}')
        for stream in streams:
            try:
                expect(False, f'the client got {stream.recv(1)!r}')
            except ConnectionResetError:
                pass
        if mode != 'dr':
            wait_until(lambda: not established(server), 'the end of the server\'s connections')
        expect(counter(lab, 'probe_sent') >= len(streams), 'nobody has been asked')
