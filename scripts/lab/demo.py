# SPDX-License-Identifier: Apache-2.0
"""What scripts/demo shows: one service by nat, by dr and by tun, in the lab of lab.py."""

import signal
import sys
import textwrap

from lab import VIP, Lab, LabError, with_port

PICTURE = """
   client              network            director: weir, VIP {vip}
   198.51.100.2 ────── router ═════════╦═ 10.0.0.1
                       10.0.0.254      ╠═ server1 10.0.0.11   nginx, answers "server1"
                       and switch      ╠═ server2 10.0.0.12   nginx, answers "server2"
                                       ╚═ server3 10.0.0.13   nginx, answers "server3"
"""
SERVICE = with_port(VIP[4], 80)


def bold(text):
    return f'\033[1m{text}\033[0m' if sys.stdout.isatty() else text


def heading(text):
    print(f'\n{bold(text)}\n{"─" * len(text)}')


def say(text):
    print(textwrap.fill(' '.join(text.split()), 96))


class Demo:
    """Shows each command as a person would type it, runs it, and shows what it prints."""

    def __init__(self, lab):
        self.lab = lab

    def shell(self, host, command):
        print(bold(f'  {host.role}# {command}'), flush=True)
        output = host.run('sh', '-c', command, env=self.lab.environment()).stdout
        print(textwrap.indent(output, '    ', lambda line: True), end='')

    def curl(self, times):
        self.shell(self.lab.client,
                   f'for i in $(seq {times}); do curl -sS -m 5 http://{VIP[4]}/; done')

    def start(self):
        heading('The network')
        print(PICTURE.format(vip=VIP[4]))
        say('''Each of the six is a network namespace of this machine. The client knows only the
            VIP, the virtual address of the service. weir runs in the director and takes what
            belongs to services off the interface with XDP; the rest stays with the kernel.''')
        print(bold('  director# weir --port eth0 &'), flush=True)
        self.lab.start_weir('--port', 'eth0', '--connections-per-worker', '100000')
        for server in self.lab.servers:
            server.start_nginx()
        say('''A service takes traffic only while its VIP is an address of the director. With two
            directors, VRRP gives it to one of them; here the demo adds it:''')
        self.shell(self.lab.director, f'ip address add {VIP[4]}/32 dev eth0')

    def set_up_servers(self, mode):
        first, *others = self.lab.servers
        first.reset()
        for command in first.set_up_commands(mode, families=(4,)):
            self.shell(first, command)
        say('and the same on the other two. Then, on the director:')
        for server in others:
            server.set_up(mode)
        self.lab.make_room(mode)

    def service(self, flag):
        self.shell(self.lab.director, f'ipvsadm -A -t {SERVICE} -s rr')
        for server in self.lab.servers:
            self.shell(self.lab.director,
                       f'ipvsadm -a -t {SERVICE} -r {with_port(server.address(), 80)} {flag}')

    def nat(self):
        heading('1. NAT: weir rewrites addresses both ways')
        say('''A real server needs nothing but the director as its default gateway, so that replies
            pass weir, which puts the VIP back as their source.''')
        self.set_up_servers('nat')
        self.service('-m')
        print()
        self.curl(6)
        say('''The requests go round (rr, round robin). server3 answers first: as in IPVS, a new
            real server goes to the head of the list, and round robin starts there.''')
        print()
        self.shell(self.lab.director, 'ipvsadm -Ln')
        self.shell(self.lab.director, 'ipvsadm -Ln --stats')
        self.shell(self.lab.director, 'ipvsadm -Lnc')
        say('Every way out of the packet path has a name and a counter:')
        self.shell(self.lab.director, 'weirctl show counters | grep -v " 0$"')

    def dr(self):
        heading('2. DR: weir changes only the Ethernet address')
        say('''Replies go from the real server straight to the router and never load the director.
            For that each real server has the VIP on its loopback, where it does not answer ARP
            (arp_ignore 1, arp_announce 2), and the router as its gateway. The statistics of a DR
            service show packets in, none out.''')
        self.again('dr', '-g')

    def tun(self):
        heading('3. TUN: weir wraps the packet for the real server')
        say('''As DR, but the real server may be anywhere that IP reaches: the packet travels inside
            another (IPIP). A real server takes it out with a tunnel device (ip link add type
            ipip); in this lab an XDP program does the same, for kernels that have none.''')
        self.again('tun', '-i')

    def again(self, mode, flag):
        self.shell(self.lab.director, f'ipvsadm -D -t {SERVICE}')
        self.set_up_servers(mode)
        self.service(flag)
        print()
        self.curl(3)
        self.shell(self.lab.director, 'ipvsadm -Ln')
        self.shell(self.lab.director, 'ipvsadm -Ln --stats')

    def keep(self):
        heading('It stays up until Ctrl-C')
        client, director = self.lab.client.name, self.lab.director.name
        environment = self.lab.environment()
        print(textwrap.dedent(f"""
            In another terminal, as root:
              export WEIR_SOCKET={self.lab.socket} PATH={environment["PATH"].split(":")[0]}:$PATH
              ipvsadm -Ln                                     what weir does
              ipvsadm -e -t {SERVICE} -r 10.0.0.12:80 -i -w 0   drain server2
              weirctl show counters
              ip netns exec {client} curl http://{VIP[4]}/
              ip netns exec {director} bash                   a shell on the director
            The log of weir: {self.lab.weirs[0].log_path}
            """))
        signal.pause()


def main():
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Lab() as lab:
            demo = Demo(lab)
            demo.start()
            demo.nat()
            demo.dr()
            demo.tun()
            if sys.argv[1:] == ['--keep']:
                demo.keep()
        print('\nDone; the namespaces are gone. --keep leaves them up to try things in.')
    except LabError as error:
        print(f'\ndemo: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nStopped; the namespaces are gone.')
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
