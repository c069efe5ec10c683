#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A real server for tests: says its name, then gives back what it gets.

usage: echo_server.py NAME PORT ADDRESS...

TCP: the name and a newline first, then every byte as it comes. UDP: name, blank, the datagram, cut
off where no longer one can be sent.
Prints "ready" when it listens on every address.
"""

import asyncio
import resource
import sys

LONGEST_IPV4, LONGEST_IPV6 = 65535 - 20 - 8, 65535 - 8


class Stream(asyncio.Protocol):
    """One TCP connection; stops reading while the other end does not."""

    def __init__(self, name):
        self.name = name
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self.name + b'\n')

    def data_received(self, data):
        self.transport.write(data)

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()


class Datagrams(asyncio.DatagramProtocol):
    """All UDP of one address."""

    def __init__(self, name, longest):
        self.name = name
        self.longest = longest
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto((self.name + b' ' + data)[:self.longest], addr)


async def main(name, port, addresses):
    loop = asyncio.get_running_loop()
    for address in addresses:
        await loop.create_server(lambda: Stream(name), address, port, backlog=4096)
        longest = LONGEST_IPV6 if ':' in address else LONGEST_IPV4
        await loop.create_datagram_endpoint(lambda longest=longest: Datagrams(name, longest),
                                            local_addr=(address, port))
    print('ready', flush=True)
    await asyncio.Event().wait()


if __name__ == '__main__':
    resource.setrlimit(resource.RLIMIT_NOFILE, (16384, 16384))
    asyncio.run(main(sys.argv[1].encode(), int(sys.argv[2]), sys.argv[3:]))
