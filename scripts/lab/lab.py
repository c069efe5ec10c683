# SPDX-License-Identifier: Apache-2.0
"""A small data centre in network namespaces: what scripts/demo shows and tests/e2e test.

    client ───── network ══╦══ director    (weir)
               (router and ╠══ server1     (nginx)
                 switch)   ╠══ server2
                           ╚══ server3

One LAN, 10.0.0.0/24 and fd00::/64, on which the director has one arm; the client is behind the
router, as clients are. With two arms, the servers are on a second LAN, 10.0.1.0/24 and fd00:1::/64.
"""

import itertools
import os
import shlex
import shutil
import signal
import socket
import tempfile
import threading

from namespaces import LabError, Namespace, remove_leftovers, run, wait_until

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), '..', '..'))
BUILD = os.path.realpath(os.environ.get('WEIR_BUILD', os.path.join(ROOT, 'build')))
FILTERING_NIC = os.path.join(BUILD, 'tests', 'libfiltering_nic.so')
DECAPSULATION = os.path.join(BUILD, 'tests', 'decapsulate.bpf.o')

# Checksums and segments are final on the wire, as on one between machines.
OFFLOADS = 'tx off rx off sg off tso off gso off gro off'.split()
AS_THE_KERNEL_HAS_THEM = ()
CLIENT = {4: '198.51.100.2', 6: '2001:db8:c::2'}
CLIENT_NET = {4: '198.51.100.0/24', 6: '2001:db8:c::/64'}
VIP = {4: '10.0.0.100', 6: 'fd00::100'}
LOCAL = {4: ['10.0.0.200', '10.0.0.201'], 6: ['fd00::200', 'fd00::201']}
# Where real servers take GUE.
GUE_PORT = 6080
SHARED_MAC = '02:00:00:00:00'
EXCEPTION_INTERFACE = 'weir0'
# The TAP device of a port that is weir's own.
WIRE = 'wire0'


def lan_address(family, arm, host):
    """The address of a host on LAN 0 or 1."""
    if family == 4:
        return f'10.0.{arm}.{host}'
    return f'fd00{f":{arm}" if arm else ""}::{host}'


def prefix_length(family):
    return 24 if family == 4 else 64


def host_length(family):
    return 32 if family == 4 else 128


def with_port(address, port):
    """As ipvsadm and URLs write it."""
    return f'[{address}]:{port}' if ':' in address else f'{address}:{port}'


class Server(Namespace):
    """A real server, and how it must be set up for each way of forwarding."""

    def __init__(self, number, lab):
        super().__init__(f'server{number}', lab.directory)
        self.lab = lab
        self.number = number

    def address(self, family=4):
        return lan_address(family, self.lab.server_arm, 10 + self.number)

    def set_up_commands(self, mode, families=(4, 6)):
        """What a person types on the server. nat: the default gateway is the director. dr, tun: the
        server has the VIP itself, keeps quiet about it, and answers by way of the router. fullnat:
        nothing beside its own network."""
        gateway = 1 if mode == 'nat' else 254
        commands = [
            f'ip route replace default via {lan_address(family, self.lab.server_arm, gateway)}'
            for family in families]
        if mode in ('dr', 'tun'):
            commands += ['sysctl -q net.ipv4.conf.all.arp_ignore=1',
                         'sysctl -q net.ipv4.conf.all.arp_announce=2']
            commands += [f'ip address add {VIP[family]}/{host_length(family)} dev lo'
                         for family in families]
        if mode == 'tun':
            commands += [f'ip link set eth0 xdp object {shlex.quote(DECAPSULATION)} section xdp']
        return commands

    def set_up(self, mode):
        self.reset()
        self.run('sh', '-ec', '\n'.join(self.set_up_commands(mode)))

    def reset(self):
        """Takes back what another mode's set-up added."""
        self.ip('address flush dev lo scope global', 'link set eth0 xdp off')

    def require_tunnel_checksums(self):
        """GRE and GUE without a checksum are dropped from now on; a wrong one always is."""
        self.ip('link set eth0 xdp off',
                f'link set eth0 xdp object {shlex.quote(DECAPSULATION)} section checked')

    def service_addresses(self, mode):
        """What a server program must bind to: a UDP reply's source is the address bound to."""
        own = mode in ('nat', 'fullnat')
        return [self.address(family) if own else VIP[family] for family in (4, 6)]

    def start_nginx(self):
        """On port 80, IPv4 and IPv6: / answers with the server's name, other paths are files of
        self.web_root(). On port 81, which wants the PROXY protocol, / answers with the client's
        address."""
        home = os.path.join(self.directory, self.role)
        os.makedirs(os.path.join(home, 'www'))
        with open(os.path.join(home, 'nginx.conf'), 'w', encoding='utf-8') as configuration:
            configuration.write(NGINX.format(home=home, name=self.role))
        process = self.start('/usr/sbin/nginx', '-p', home, '-e', 'stderr', '-c', 'nginx.conf')
        self.wait_for_port(80, process)
        return process

    def web_root(self):
        return os.path.join(self.directory, self.role, 'www')

    def wait_for_port(self, port, process):
        def connects():
            if process.exit_code is not None:
                raise LabError(f'{process.name} ended:\n{process.output()}')
            with self.entered(), socket.socket() as probe:
                return probe.connect_ex((self.address(4), port)) == 0
        wait_until(connects, f'port {port} of {self.role}')


NGINX = """
daemon off;
user root;
worker_processes 1;
pid {home}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  server {{
    listen 80;
    listen [::]:80;
    root {home}/www;
    location = / {{ return 200 "{name}\\n"; }}
  }}
  server {{
    listen 81 proxy_protocol;
    listen [::]:81 proxy_protocol;
    root {home}/www;
    location = / {{ return 200 "$proxy_protocol_addr\\n"; }}
  }}
}}
"""


class Lab:
    """The whole network. Use it in a `with`: leaving takes everything away again."""

    kept_logs = []  # (name, text) of every weir of the labs closed so far: for a failed test

    def __init__(self, servers=3, arms=1, offloads=OFFLOADS):
        remove_leftovers()
        self.offloads = offloads
        self.server_arm = arms - 1
        self.directory = tempfile.mkdtemp(prefix='weirlab-')
        self.socket = os.path.join(self.directory, 'weir.sock')
        self.memif_socket = os.path.join(self.directory, 'memif.sock')
        self.hosts = []
        self.weirs = []
        self.nics_filter = False  # whether ports that are weir's own filter as a NIC does
        try:
            self._make_hosts(servers)
            self._make_links(arms)
            self._make_routes(arms)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        # An impatient second Ctrl-C must not leave half of it behind.
        in_main_thread = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main_thread else None
        for weir in self.weirs:
            weir.stop()
            Lab.kept_logs.append((os.path.basename(weir.log_path), weir.output()))
        for host in reversed(self.hosts):
            host.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        if in_main_thread:
            signal.signal(signal.SIGINT, before)

    def _add(self, host):
        self.hosts.append(host)
        return host

    def _make_hosts(self, servers):
        self.network = self._add(Namespace('network', self.directory))
        self.client = self._add(Namespace('client', self.directory))
        self.director = self._add(Namespace('director', self.directory))
        self.servers = [self._add(Server(number + 1, self)) for number in range(servers)]

    def _make_links(self, arms):
        for arm in range(arms):
            self.network.ip(f'link add lan{arm} address {SHARED_MAC}:f{arm} type bridge',
                            f'link set lan{arm} up')
            self.plug(self.director, f'eth{arm}', f'director{arm}', f'lan{arm}', 0x10 + arm)
        self.plug(self.client, 'eth0', 'client', None, 0x02)
        for server in self.servers:
            self.plug(server, 'eth0', server.role, f'lan{self.server_arm}', 0x20 + server.number)

    def plug(self, host, interface, peer, bridge, mac):
        """A cable from a host's interface to the network's, which is a port of a bridge."""
        host.ip(f'link add {interface} address {SHARED_MAC}:{mac:02x} type veth '
                f'peer name {peer} netns {self.network.name}', f'link set {interface} up')
        if bridge:
            self.network.ip(f'link set {peer} master {bridge}')
        self.network.ip(f'link set {peer} up')
        for namespace, name in ((host, interface), (self.network, peer)):
            if self.offloads:
                namespace.run('ethtool', '-K', name, *self.offloads)

    def _make_routes(self, arms):
        for host in (self.network, self.director):
            host.sysctl({'net.ipv4.ip_forward': 1, 'net.ipv6.conf.all.forwarding': 1,
                         'net.ipv4.conf.all.rp_filter': 0, 'net.ipv4.conf.default.rp_filter': 0,
                         'net.ipv4.conf.all.send_redirects': 0,
                         'net.ipv4.conf.default.send_redirects': 0})
        for family in (4, 6):
            length = prefix_length(family)
            router = CLIENT[family][:-1] + '1'
            self.client.ip(f'address add {CLIENT[family]}/{length} dev eth0',
                           f'route add default via {router}')
            self.network.ip(f'address add {router}/{length} dev client')
            for arm in range(arms):
                self.network.ip(
                    f'address add {lan_address(family, arm, 254)}/{length} dev lan{arm}')
            self._address_director(family, [f'eth{arm}' for arm in range(arms)])
            for server in self.servers:
                server.ip(f'address add {server.address(family)}/{length} dev eth0')

    def _address_director(self, family, interfaces):
        length = prefix_length(family)
        self.director.ip(
            *(f'address add {lan_address(family, arm, 1)}/{length} dev {interface}'
              for arm, interface in enumerate(interfaces)),
            f'route replace default via {lan_address(family, 0, 254)}')

    def add_vip(self, interface='eth0'):
        for family in (4, 6):
            self.director.ip(f'address add {VIP[family]}/{host_length(family)} dev {interface}')

    def add_local_addresses(self, interface='eth0'):
        """What fullnat sends from."""
        for family in (4, 6):
            self.director.ip(*(f'address add {address}/{host_length(family)} dev {interface}'
                               for address in LOCAL[family]))
            self.weirctl('add', 'local-address', f'{LOCAL[family][0]}-{LOCAL[family][-1]}')

    def delete_vip(self, interface='eth0'):
        for family in (4, 6):
            self.director.ip(f'address delete {VIP[family]}/{host_length(family)} dev {interface}')

    def set_up_servers(self, mode):
        for server in self.servers:
            server.set_up(mode)
        self.make_room(mode)

    def make_room(self, mode):
        """A tunnel's header takes room: the client's packets get smaller."""
        self.set_client_mtu(1440 if mode == 'tun' else 1500)

    def set_client_mtu(self, mtu):
        self.network.ip(f'link set client mtu {mtu}')
        self.client.ip(f'link set eth0 mtu {mtu}')

    # The director's programs.

    def environment(self):
        return dict(os.environ, WEIR_SOCKET=self.socket,
                    PATH=f'{BUILD}:{os.environ.get("PATH", "")}')

    def start_weir(self, *options, ready=True):
        """Starts weir in the director; waits until it serves."""
        preload = ('env', f'LD_PRELOAD={FILTERING_NIC}') if self.nics_filter else ()
        weir = self.director.start(*preload, os.path.join(BUILD, 'weir'), '--socket', self.socket,
                                   *options, log=f'weir-{len(self.weirs)}.log')
        self.weirs.append(weir)
        if ready:
            weir.wait_for_output('weir: ready', seconds=30.0)
        return weir

    def start_weir_on_kernel_ports(self, *options):
        """weir on AF_XDP, on every interface of the director, which the kernel keeps."""
        ports = [('--port', f'eth{arm}') for arm in range(self.server_arm + 1)]
        weir = self.start_weir(*itertools.chain(*ports), *options)
        self.add_vip()
        return weir

    def start_weir_on_own_port(self, *options):
        """weir on a port that is its own, as a NIC given to DPDK is: a TAP device that takes the
        place of the director's cable. The exception interface has the director's addresses."""
        weir = self.start_weir('--port', f'vdev:net_tap0,iface={WIRE}', *options)
        self.director.ip(f'link set {WIRE} netns {self.network.name}')
        self._replace_cable()
        return weir

    def start_weir_on_memif(self, *options):
        """weir on memory that it shares with another process, testpmd in the network, which carries
        frames between it and a TAP device in the place of the director's cable."""
        weir = self.start_weir('--port', f'vdev:net_memif0,role=server,socket={self.memif_socket},'
                               f'socket-abstract=no,mac={SHARED_MAC}:10', *options)
        self.start_memif_peer()
        self._replace_cable()
        return weir

    def start_memif_peer(self):
        peer = self.network.start(
            'dpdk-testpmd', '--lcores', '0@0,1@0', '--no-huge', '-m', 64, '--no-pci', '--no-shconf',
            '--file-prefix', self.network.name, '--no-telemetry',
            f'--vdev=net_memif0,role=client,socket={self.memif_socket},socket-abstract=no',
            f'--vdev=net_tap0,iface={WIRE}',
            '--', '--forward-mode=io', '--total-num-mbufs=8192', '--disable-link-check',
            '--stats-period=1')  # without it, the end of its input ends it
        peer.wait_for_output('NIC statistics', seconds=30.0)
        return peer

    def _replace_cable(self):
        """The wire's far end is a switch port: the MAC address is the director's, inside weir."""
        self.director.ip('link delete eth0')
        self.plug_wire()
        self.director.ip(f'link set {EXCEPTION_INTERFACE} up')
        for family in (4, 6):
            self._address_director(family, [EXCEPTION_INTERFACE])
        self.add_vip(EXCEPTION_INTERFACE)

    def plug_wire(self):
        self.network.ip(f'link set {WIRE} address {SHARED_MAC}:e0', f'link set {WIRE} master lan0',
                        f'link set {WIRE} up')
        self.network.run('ethtool', '-K', WIRE, *OFFLOADS, check=False)

    def ipvsadm(self, *arguments, check=True):
        """ipvsadm as a person on the director types it: one string, or words."""
        words = arguments[0].split() if len(arguments) == 1 else arguments
        return run(os.path.join(BUILD, 'ipvsadm'), *words, check=check, env=self.environment())

    def weirctl(self, *words, check=True):
        return run(os.path.join(BUILD, 'weirctl'), *words, check=check, env=self.environment())
