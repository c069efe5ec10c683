# SPDX-License-Identifier: Apache-2.0
"""Ways to start weir."""

import os
import shlex

from checks import (SMALL_TABLE, add_service, alone, counter, curl, datagram_socket, equal, expect,
                    running, url)
from lab import BUILD, VIP, Lab, run, wait_until

FREE_HUGE_PAGES = '/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages'


def test_help_names_every_option():
    said = run(os.path.join(BUILD, 'weir'), '--help').stdout
    for option in ('port', 'workers', 'lcores', 'connections-per-worker',
                   'ipv6-connections-per-worker', 'mtu', 'busy-poll',
                   'normal-pages', 'socket', 'settings', 'eal'):
        expect(f'--{option}' in said, f'--help does not name --{option}')


@alone  # a whole CPU
def test_settings_file_and_busy_polling():
    with Lab(servers=1) as lab:
        lab.set_up_servers('nat')
        lab.servers[0].start_nginx()
        path = os.path.join(lab.directory, 'weir.ini')
        with open(path, 'w', encoding='utf-8') as settings:
            settings.write('port = eth0\nworkers = 1\nconnections-per-worker = 20000\n'
                           'busy-poll = true\n')
        lab.start_weir('--settings', path)
        lab.add_vip()
        add_service(lab, 'nat', 80)
        equal(curl(lab.client, url()).strip(), 'server1', 'answer')


def start_with_free_huge_pages(lab, count):
    """The kernel's own count stays: the pages are the whole machine's, so weir is only shown
    another."""
    path = os.path.join(lab.directory, 'count')
    with open(path, 'w', encoding='utf-8') as file:
        file.write(f'{count}\n')
    weir = shlex.join([os.path.join(BUILD, 'weir'), '--port', 'eth0', '--socket', lab.socket,
                       *SMALL_TABLE])
    process = lab.director.start('sh', '-c',
                                 f'mount --bind {path} {FREE_HUGE_PAGES} && exec {weir}')
    process.wait_for_output('weir: ready', 30.0)
    return process


def cpus_of(pid, thread):
    with open(f'/proc/{pid}/task/{thread}/status', encoding='utf-8') as status:
        line = next(line for line in status if line.startswith('Cpus_allowed:'))
    return int(line.split()[1].replace(',', ''), 16)


def name_of(pid, thread):
    with open(f'/proc/{pid}/task/{thread}/comm', encoding='utf-8') as name:
        return name.read().strip()


def test_other_threads_keep_off_the_workers_cpus():
    with running(servers=1) as lab:
        pid = lab.weirs[0].pid
        threads = os.listdir(f'/proc/{pid}/task')
        workers = [thread for thread in threads if 'worker' in name_of(pid, thread)]
        equal(len(workers), 1, 'workers')
        polled = cpus_of(pid, workers[0])
        if polled == cpus_of('self', os.getpid()):
            return  # there is one CPU only
        for thread in set(threads) - set(workers):
            expect(cpus_of(pid, thread) & polled == 0,
                   f'{name_of(pid, thread)} may run where a worker polls')


def says(lab, text):
    wait_until(lambda: text in lab.weirs[0].output(), f'"{text}" in the log', 15.0)


def test_mtu_beyond_the_buffers_is_said_and_what_it_costs_counted():
    with running(servers=1) as lab:
        lab.servers[0].start_nginx()
        add_service(lab, 'nat', 80)
        for host, name in ((lab.network, 'director0'), (lab.network, 'lan0'),
                           (lab.director, 'eth0'), (lab.client, 'eth0'), (lab.network, 'client')):
            host.ip(f'link set {name} mtu 3000')
        says(lab, 'the MTU of eth0 is 3000 now')
        before = counter(lab, 'lost_by_device')
        lab.client.run('ping', '-n', '-c', 1, '-W', 2, VIP[4])
        with datagram_socket(lab.client, VIP[4], 80) as sender:
            add_service(lab, 'nat', 80, 'udp')
            def lost():
                sender.send(bytes(2500))
                return counter(lab, 'lost_by_device') > before
            wait_until(lost, 'a large packet that is counted as lost')


def test_queues_that_appear_are_said():
    with Lab(servers=1) as lab:
        lab.director.ip('link delete eth0', f'link add eth0 numrxqueues 2 numtxqueues 2 type veth '
                        f'peer name director0 netns {lab.network.name} numrxqueues 2 numtxqueues 2',
                        'link set eth0 up', 'address add 10.0.0.1/24 dev eth0')
        lab.network.ip('link set director0 master lan0', 'link set director0 up')
        for host, name in ((lab.director, 'eth0'), (lab.network, 'director0')):
            host.run('ethtool', '-L', name, 'rx', 1, 'tx', 1)
        lab.start_weir_on_kernel_ports(*SMALL_TABLE)
        lab.director.run('ethtool', '-L', 'eth0', 'rx', 2, 'tx', 2)
        says(lab, 'eth0 has 2 receive queues now')


def has_huge_pages():
    with open(FREE_HUGE_PAGES, encoding='utf-8') as file:
        return int(file.read()) > 0


def test_huge_pages_that_are_gone_again():
    """Another process was faster: weir goes on without them."""
    with Lab(servers=1) as lab:
        lab.set_up_servers('nat')
        lab.servers[0].start_nginx()
        process = start_with_free_huge_pages(lab, 100_000)
        if not has_huge_pages():
            expect('starts anew with normal pages' in process.output(), 'weir does not say so')
        lab.add_vip()
        add_service(lab, 'nat', 80)
        equal(curl(lab.client, url()).strip(), 'server1', 'answer')
        equal(process.stop(), 0, 'exit code')


def test_no_free_huge_pages():
    """Ordinary pages do, slower, and weir says so."""
    with Lab(servers=1) as lab:
        lab.set_up_servers('nat')
        lab.servers[0].start_nginx()
        process = start_with_free_huge_pages(lab, 0)
        expect('huge pages' in process.output(), 'weir does not say that it has no huge pages')
        lab.add_vip()
        add_service(lab, 'nat', 80)
        equal(curl(lab.client, url()).strip(), 'server1', 'answer')


def expect_few_privileges(process):
    """Every thread keeps five, and none can get more."""
    tasks = f'/proc/{process.pid}/task'
    for task in os.listdir(tasks):
        with open(f'{tasks}/{task}/status', encoding='utf-8') as file:
            status = dict(line.rstrip('\n').split(':\t', 1) for line in file)
        # NET_ADMIN 12, NET_RAW 13, IPC_LOCK 14, SYS_NICE 23, BPF 39.
        wanted = sum(1 << bit for bit in (12, 13, 14, 23, 39))
        for name in ('CapPrm', 'CapEff'):
            equal(int(status[name], 16), wanted, f'{name} of {status["Name"]}')
        equal(int(status['CapInh'], 16), 0, f'CapInh of {status["Name"]}')
        equal(status['NoNewPrivs'], '1', f'NoNewPrivs of {status["Name"]}')


def test_privileges_are_given_up():
    with running() as lab:
        expect_few_privileges(lab.weirs[0])


def test_user_with_a_few_privileges_starts_it():
    with Lab(servers=1) as lab:
        capabilities = '+net_admin,+net_raw,+bpf,+ipc_lock,+sys_nice,+perfmon'
        # /run/weir is this command's own, as `ip netns exec` gives it its own mounts.
        weir = lab.director.start(
            'sh', '-ec', f"""
            mkdir -p /run/weir
            mount -t tmpfs none /run/weir
            mkdir -m 700 /run/weir/locks
            chown nobody /run/weir /run/weir/locks
            mkdir /run/weir/build
            mount --bind {shlex.quote(BUILD)} /run/weir/build
            exec setpriv --reuid=nobody --regid=nogroup --clear-groups \\
              --inh-caps={capabilities} --ambient-caps={capabilities} \\
              /run/weir/build/weir --port eth0 {shlex.join(SMALL_TABLE)}""")
        weir.wait_for_output('weir: ready', 30.0)
        expect_few_privileges(weir)
        equal(weir.stop(), 0, 'exit code')


def test_interface_that_is_down_is_brought_up_and_said():
    with Lab(servers=1) as lab:
        lab.director.ip('link set eth0 down')
        weir = lab.start_weir_on_kernel_ports(*SMALL_TABLE)
        expect('eth0 was down' in weir.output(), weir.output())


def test_two_weirs_on_one_host():
    with running() as one, running() as other:
        for lab, servers in ((one, 1), (other, 2)):
            for server in lab.servers[:servers]:
                server.start_nginx()
                lab.ipvsadm('-C')
            del lab.servers[servers:]
            add_service(lab, 'nat', 80)
        expect(one.socket != other.socket, 'the labs share a socket')
        equal(one.ipvsadm('-Ln').stdout.count('Masq'), 1, 'real servers of the first')
        equal(other.ipvsadm('-Ln').stdout.count('Masq'), 2, 'real servers of the second')
        for lab in (one, other):
            expect(curl(lab.client, url()).startswith('server'), 'a service does not answer')
