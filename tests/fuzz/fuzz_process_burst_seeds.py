#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes inputs for fuzz_process_burst into the directory given: small scripts in the format of
director_script.cc, which together reach nearly every outcome (fuzz_seeds_test.cc)."""
import itertools
import pathlib
import socket
import struct
import sys

SERVICE, SERVER, TIME, SETTINGS, SETTLE, BURST, MARK, OPTION, LOCAL = range(9)
NAT, DR, TUN, FULLNAT = range(4)
MODES = ('nat', 'dr', 'tun', 'fullnat')
TUNNELS = ((0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1))  # IPIP, GUE, GRE; checksum, remote
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
NUMBERS = {'tcp': 6, 'udp': 17, 'sctp': 132}
CLIENTS = ('10.1.0.1', '2001:db8:1::1')
# Of real servers, beside those that are there.
OWN, NO_NEXT_HOP, FAR = 0, 70, 79
VIPS = ('10.9.0.1', '2001:db8:9::1')

# ---- Control ----

SCHEDULERS = ('dh', 'fo', 'lblc', 'lblcr', 'lc', 'mh', 'nq', 'ovf', 'rr', 'sed', 'sh', 'twos',
              'wlc', 'wrr')
RR = SCHEDULERS.index('rr')
CONHASH = 31
# Of a service.
ONE_PACKET, PERSISTENT, BY_NETWORK, FLAGS = 1, 2 << 1, 8, 16 | 32
BY_MARK = 0x80
(GONE_DROP, GONE_KEEP, GONE_RESET, HIDDEN, TOA, PROXY, TABLE_SIZE, SLOW_OFF, SLOW_START,
 IDLE_OFF, IDLE_SHORT, IDLE_LONG) = range(12)
(CONN_REUSE, EXPIRE_NODEST, SLOPPY_TCP, EXPIRE_TEMPLATE, DROP_ENTRY, CACHE_BYPASS, NAT_ICMP_SEND,
 PMTU_DISC) = range(8)


def key_of(protocol, v6, port=80):
    return {'tcp': 0, 'udp': 1, 'sctp': 0x40}[protocol] | v6 << 1 | (port - 80) << 4


def add_service(key, scheduler=RR, options=0):
    return bytes([SERVICE, 5 + 8 * scheduler, key, options])


def server(key, number, mode, v6=0, tunnel=(0, 0), port=80, thresholds=0):
    kind, checksum = tunnel
    return bytes([key, 160 + number if v6 else number, port - 80 + kind * 4 + checksum * 16,
                  thresholds]), 4 * (10 + mode)  # weight 1


def add_server(*place, **more):
    what, choice = server(*place, **more)
    return bytes([SERVER, 2 + choice]) + what


def delete_server(*place, **more):
    what, choice = server(*place, **more)
    return bytes([SERVER, choice]) + what


def option(key, number):
    return bytes([OPTION, key, number])


def setting(number, value=1):
    return bytes([SETTINGS, number + 8 * value])


def wait(seconds):
    return bytes([TIME, seconds])


# ---- Frames ----

SERVER_SIDE, OTHER_WORKER, TO_US, RIGHT_CHECKSUMS, WRONG_END, RIGHT_LENGTH, ANSWER, ERROR = (
    1 << bit for bit in range(8))
RIGHT = TO_US | RIGHT_CHECKSUMS | RIGHT_LENGTH
CHAINED = 128


def framed(data, options):
    return bytes([options]) + struct.pack('!H', len(data)) + data


def burst(*frames, options=0):
    return bytes([BURST, options | len(frames) - 1]) + b''.join(frames)


def tcp(flags, sequence=1, acknowledged=1, options=b'', data=b''):
    """Of a segment, what is behind the ports; so udp() and sctp()."""
    return struct.pack('!IIBBHHH', sequence, acknowledged, 5 + len(options) // 4 << 4, flags, 1000,
                       0, 0) + options + data


def udp(data=b'data', summed=0x1234):
    return struct.pack('!HH', 8 + len(data), summed) + data


def sctp(*chunks):
    return struct.pack('!II', 7, 0) + b''.join(struct.pack('!BBH', each, 0, 8) + b'data'
                                               for each in chunks)


INIT, INIT_ACK, ABORT, SHUTDOWN, SHUTDOWN_ACK, COOKIE_ECHO, COOKIE_ACK, SHUTDOWN_DONE = (
    1, 2, 6, 7, 8, 10, 11, 14)
OPENS = {'tcp': tcp(SYN), 'udp': udp(), 'sctp': sctp(INIT)}
ANSWERS = {'tcp': tcp(SYN | ACK, 1, 2), 'udp': udp(), 'sctp': sctp(INIT_ACK)}
GOES_ON = {'tcp': tcp(ACK, 2, 2, data=b'data'), 'udp': udp(b'more'), 'sctp': sctp(COOKIE_ECHO, 0)}
ENDS = {'tcp': tcp(RST, 2, 2), 'udp': udp(b'end'), 'sctp': sctp(ABORT)}


def checksum(data):
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    return 0xffff - (total % 0xffff)


def ip(source, destination, number, payload, hops=64, fragment=0, ip_options=b''):
    """From the EtherType on. An IPv4 `fragment` is the whole field, with the flags."""
    if ':' in source:
        header = struct.pack('!HIHBB', 0x86dd, 6 << 28, len(payload), number, hops)
        header += b''.join(socket.inet_pton(socket.AF_INET6, a) for a in (source, destination))
    else:
        header = struct.pack('!BBHHHBBH', 0x45 + len(ip_options) // 4, 0,
                             20 + len(ip_options) + len(payload), 7, fragment, hops, number, 0)
        header += b''.join(socket.inet_aton(a) for a in (source, destination)) + ip_options
        header = b'\x08\0' + header[:10] + struct.pack('!H', checksum(header)) + header[12:]
    return header + payload


def frame(source, destination, protocol, transport, ports=(4000, 80), options=RIGHT, **more):
    vlan = b'\x81\x00\x00' + bytes([more.pop('vlan')]) if 'vlan' in more else b''
    packet = ip(source, destination, NUMBERS[protocol], struct.pack('!HH', *ports) + transport,
                **more)
    return framed(bytes(12) + vlan + packet, options & ~RIGHT_LENGTH if vlan else options)


def of_client(protocol, v6, transport, **more):
    return frame(CLIENTS[v6], VIPS[v6], protocol, transport, **more)


def answer(transport, options=0):
    """To the last frame that left, by whom it was for."""
    return framed(transport, RIGHT | ANSWER | options)


def error(kind, code, detail=0, quoted=0):
    """About the last frame that left; quotes units of 8 bytes, or all."""
    return framed(struct.pack('!BBBHI', quoted, kind, code, 0, detail), RIGHT | ERROR)


def errors(v6):
    """One by one: each is about the packet before all of them, until one leaves itself."""
    kinds = (((1, 4, 0), (2, 0, 1300), (3, 0, 0), (4, 0, 40)) if v6 else
             ((3, 3, 0), (3, 4, 1300), (11, 0, 0), (12, 0, 9 << 24), (4, 0, 0)))
    return [error(*kind, quoted=quoted) for kind in kinds for quoted in (0, 8 if v6 else 4)]


# ---- Scripts ----

def life(protocol, v6, mode, tunnel=(0, 0), server_v6=None):
    """A service with two servers, a connection's packets, time, a removal, more packets."""
    key = key_of(protocol, v6)
    to = {'v6': v6 if server_v6 is None else server_v6, 'tunnel': tunnel}
    opens, goes_on, ends = OPENS[protocol], GOES_ON[protocol], ENDS[protocol]

    def there(transport, **more):
        return of_client(protocol, v6, transport, **more)

    return b''.join([
        add_service(key), add_server(key, 1, mode, **to), add_server(key, 2, mode, **to),
        burst(there(opens)), burst(answer(ANSWERS[protocol])), burst(there(goes_on)),
        wait(2),
        burst(there(goes_on, hops=1), there(goes_on, vlan=7), there(goes_on, vlan=8),
              there(opens, ports=(4001, 80))),
        burst(there(goes_on, options=RIGHT | WRONG_END), there(goes_on)),
        burst(answer(goes_on)), burst(there(ends)),
        delete_server(key, 2, mode, **to), burst(there(goes_on)),
        setting(CONN_REUSE), bytes([SETTLE]), wait(20), burst(there(opens), there(opens)),
    ])


def about_errors(protocol, v6, mode, tunnel=(0, 0), server_v6=None):
    """Routers and hosts on either side complain about a connection's packets."""
    key = key_of(protocol, v6)
    server_v6 = v6 if server_v6 is None else server_v6
    script = [add_service(key), add_server(key, 1, mode, v6=server_v6, tunnel=tunnel)]
    for complaint in errors(server_v6):
        script += [burst(of_client(protocol, v6, OPENS[protocol])), burst(complaint)]
    for complaint in errors(v6):
        script += [burst(of_client(protocol, v6, OPENS[protocol])),
                   burst(answer(ANSWERS[protocol])), burst(complaint)]
    return b''.join(script)


def pieces(v6, lengths, again=(), start=0):
    """Of one UDP datagram, in units of 8 bytes; those of `again` come twice, beginning earlier."""
    data = bytes(i % 256 for i in range(8 * sum(lengths) - 8))
    payload = struct.pack('!HH', 4000, 80) + udp(data)
    made, first = [], start
    for number, length in enumerate(lengths):
        more = number + 1 < len(lengths)
        for begin in (first - 1, first) if number in again else (first,):
            part = payload[8 * (begin - start):8 * (first - start + length)]
            if v6:
                part = struct.pack('!BBHI', NUMBERS['udp'], 0, begin << 3 | more, 7) + part
            packet = ip(CLIENTS[v6], VIPS[v6], 44 if v6 else NUMBERS['udp'], part,
                        fragment=begin | more << 13)
            made.append(framed(bytes(12) + packet, RIGHT))
        first += length
    return made


def many_pieces(v6):
    """The first of many datagrams."""
    first = pieces(v6, (2, 3))[0]
    place = 3 + (14 + 40 + 7 if v6 else 14 + 5)  # of the id's last byte
    return [first[:place] + bytes([number]) + first[place + 1:] for number in range(8)]


def fragmented(v6, mode, order, server_v6=None):
    key = key_of('udp', v6)
    parts = {'ordered': pieces(v6, (2, 3, 1)), 'reversed': pieces(v6, (2, 3, 1))[::-1],
             'overlapping': pieces(v6, (2, 3, 1), again=(1,)),
             'doubled': pieces(v6, (2, 3))[:1] * 2 + pieces(v6, (2, 3)),
             'large': pieces(v6, (170, 60)),
             'contradicting': pieces(v6, (2, 3)) + pieces(v6, (2, 4)),
             'lost': pieces(v6, (2, 3, 1))[1:], 'many': many_pieces(v6),
             'too-long': pieces(v6, (1, 1), start=8190)}[order]
    if order == 'contradicting':
        parts = [parts[1], parts[3], parts[0]]
    to = v6 if server_v6 is None else server_v6
    return b''.join([add_service(key), add_server(key, 1, mode, v6=to),
                     *(burst(part) for part in parts), burst(answer(udp())), wait(70)])


def tiny_fragments():
    head = struct.pack('!HH', 4000, 80)
    data = [ip(CLIENTS[0], VIPS[0], NUMBERS['tcp'], head + tcp(SYN)[:4], fragment=1 << 13),
            ip(CLIENTS[0], VIPS[0], NUMBERS['tcp'], head + tcp(SYN), fragment=1),
            ip(CLIENTS[0], VIPS[0], NUMBERS['udp'], b'', fragment=1 << 13),
            ip(CLIENTS[0], VIPS[0], NUMBERS['udp'], head + udp(b'odd'), fragment=1 << 13)]
    return b''.join([add_service(key_of('tcp', 0)), add_service(key_of('udp', 0)),
                     burst(*(framed(bytes(12) + each, RIGHT) for each in data))])


def associations(v6, mode):
    key = key_of('sctp', v6)

    def there(*chunks):
        return burst(of_client('sctp', v6, sctp(*chunks)))

    def back(*chunks):
        return burst(answer(sctp(*chunks)))

    opening = [there(INIT), back(INIT_ACK), there(COOKIE_ECHO, 0), back(COOKIE_ACK)]
    return b''.join([
        add_service(key), add_server(key, 1, mode, v6=v6), *opening, there(0), back(3),
        there(SHUTDOWN), back(SHUTDOWN_ACK), there(SHUTDOWN_DONE), wait(5), *opening,
        there(COOKIE_ECHO, ABORT), *opening, back(ABORT), there(INIT), back(INIT_ACK),
        there(ABORT)])


def told(protocol, v6, how, server_v6=None):
    """Fullnat that tells the real server who the client is."""
    key = key_of(protocol, v6)
    script = [add_service(key), option(key, how),
              add_server(key, 1, FULLNAT, v6=v6 if server_v6 is None else server_v6)]
    if protocol == 'udp':
        there = burst(of_client('udp', v6, udp(bytes(100))))
        script += [there, burst(answer(udp()))]
        for complaint in errors(v6 if server_v6 is None else server_v6):
            script += [there, burst(complaint)]
        return b''.join(script)
    mss = struct.pack('!BBHBBBB', 2, 4, 1460, 3, 3, 7, 1)

    def there(*segment, **more):
        return burst(of_client('tcp', v6, tcp(*segment, **more)))

    header = 28 if not v6 else 52
    forged = bytes([254, 8, 0, 1, 1, 2, 3, 4])
    sack = struct.pack('!BBBBII', 1, 1, 5, 10, 2, 2 + header)
    script += [
        there(SYN, 1, 0, options=mss), burst(answer(tcp(SYN | ACK, 9, 7))),
        burst(answer(tcp(SYN | ACK, 9, 1))),
        there(SYN, 1, 0, options=mss), burst(answer(tcp(SYN | ACK, 9, 2, options=mss))),
        there(ACK, 2, 10, options=forged), there(ACK | PSH, 2, 10, data=bytes(1440)),
        there(ACK | 32, 2, 10, data=b'request'), burst(answer(tcp(ACK, 10, 2 + 5))),
        there(ACK, 2, 10),
        burst(answer(tcp(ACK, 10, 2 + header + 7, options=sack, data=b'answer'))),
        there(ACK | FIN, 9, 16), burst(answer(tcp(ACK | FIN, 16, 2 + header + 8))),
        there(ACK, 10, 17), there(RST, 10, 17)]
    return b''.join(script)


def many_clients(protocol, v6, options=0, thresholds=0, mark=False, scheduler=RR):
    """Clients of one network, each received by the wrong worker or the right one; then time."""
    vip, client = VIPS[v6], ('2001:db8:1::' if v6 else '10.1.0.')
    key = BY_MARK | v6 << 1 if mark else key_of(protocol, v6)
    script = [add_service(key, scheduler, options)]
    script += [add_server(key, number, NAT, v6=v6, thresholds=thresholds) for number in (1, 2)]
    if mark:
        script.append(bytes([MARK, 2]))
    bursts = [burst(*(frame(f'{client}{1 + i}', vip, protocol, OPENS[protocol], (4000 + i, 80),
                            RIGHT | i % 2 * OTHER_WORKER) for i in range(first, first + 4)))
              for first in range(0, 12, 4)]
    return b''.join([*script, *bursts, option(key, GONE_RESET), delete_server(key, 1, NAT, v6=v6),
                     *bursts, setting(EXPIRE_NODEST), setting(EXPIRE_TEMPLATE),
                     add_server(key, 1, NAT, v6=v6), *bursts, wait(70), *bursts])


def from_client(transport, source=CLIENTS[0], **more):
    return frame(source, VIPS[0], 'tcp', transport, **more)


def from_server(address, **more):
    return frame(address, more.pop('client', CLIENTS[0]), 'tcp', tcp(ACK),
                 (80, more.pop('client_port', 4000)), RIGHT | SERVER_SIDE, **more)


def damaged():
    """What no router lets pass, and what is not IP at all."""
    whole = bytes(12) + ip(CLIENTS[0], VIPS[0], 6, struct.pack('!HH', 4000, 80) + tcp(SYN))
    v6 = bytes(12) + ip(CLIENTS[1], VIPS[1], 0, b'\0\0\0\0\0\0\0\0' * 10)
    icmp = bytes(12) + ip(CLIENTS[0], VIPS[0], 1, struct.pack('!BBHI', 3, 3, 1, 0) + whole[14:])
    frames = [framed(whole[:40], TO_US), framed(whole[:30], TO_US), framed(whole, RIGHT & ~TO_US),
              framed(whole[:24] + b'\0\0' + whole[26:], TO_US),
              framed(whole[:14] + b'\x44' + whole[15:], TO_US),
              framed(whole[:16] + b'\x09' + whole[17:], TO_US | RIGHT_CHECKSUMS),
              framed(whole[:14] + b'\x55' + whole[15:], RIGHT), framed(v6, RIGHT),
              framed(v6[:14] + b'\x50' + v6[15:], RIGHT), framed(b'\xff' * 60, 0),
              framed(whole[:12] + b'\x08\x06' + whole[14:], TO_US),
              framed(icmp, RIGHT), framed(icmp, RIGHT | WRONG_END)]
    key = key_of('tcp', 0)
    return b''.join([add_service(key), add_server(key, 1, NAT),
                     *(burst(each) for each in frames),
                     burst(from_client(tcp(SYN)), options=CHAINED)])


def unserved():
    """Packets for which there is no connection, no real server or no way."""
    key, start = key_of('tcp', 0), burst(from_client(tcp(SYN)))
    starts = burst(*(from_client(tcp(SYN), ports=(4000 + i, 80)) for i in range(3)))
    service, services = add_service(key), add_service(key) + add_server(key, 1, NAT)
    far = burst(from_client(tcp(SYN), source='192.0.2.9'))
    return {
        'strangers': [
            services, burst(from_client(tcp(ACK)), from_client(tcp(SYN), ports=(4000, 99))),
            burst(from_server('10.2.0.1')), setting(NAT_ICMP_SEND),
            burst(from_server('10.2.0.1'), from_server('10.2.0.1', client='192.0.2.9', hops=1))],
        'martian': [services, burst(from_client(tcp(SYN), source='127.0.0.1'))],
        'far': [services, far, burst(answer(ANSWERS['tcp'])),
                burst(from_client(tcp(SYN), source='192.0.2.9', hops=1))],
        'nobody': [service, starts, starts, far, add_service(BY_MARK), bytes([MARK, 2]), starts,
                   setting(CACHE_BYPASS), starts],
        'neighbour': [service, add_server(key, NO_NEXT_HOP, NAT), start],
        'own': [service, add_server(key, OWN, NAT), start, burst(from_client(tcp(ACK)))],
        'own-port': [service, add_server(key, OWN, NAT, port=81), start],
        'no-route': [service, add_server(key, FAR, NAT), start, setting(NAT_ICMP_SEND),
                     burst(from_server('192.0.2.9', client_port=4999))],
        'gone': [service, option(key, GONE_RESET), add_server(key, 1, NAT), start,
                 delete_server(key, 1, NAT), burst(from_client(tcp(ACK))),
                 burst(from_client(tcp(RST))), option(key, GONE_DROP),
                 burst(from_client(tcp(ACK))), start],
        'asked': [service, option(key, GONE_RESET), add_server(key, 1, NAT), start,
                  delete_server(key, 1, NAT), bytes([SETTLE]), burst(from_client(tcp(ACK)))],
    }


def shortages():
    """Packets for which there is no room: in tables, ports, links or the other address family."""
    key, udp_key = key_of('tcp', 0), key_of('udp', 0)
    service, udp_service = add_service(key), add_service(udp_key)
    starts = [burst(*(from_client(tcp(SYN), ports=(4000 + first + i, 80)) for i in range(4)))
              for first in range(0, 40, 4)]

    def large(source=CLIENTS[0], fragment=0x4000):
        return frame(source, VIPS[0], 'udp', udp(bytes(1460)), fragment=fragment)

    return {
        'ambiguous': [service, add_service(key + 16), add_server(key, 1, NAT),
                      add_server(key + 16, 1, NAT), burst(from_client(tcp(SYN))),
                      burst(from_client(tcp(SYN), ports=(4000, 81)))],
        'full': [service, add_server(key, 1, NAT), setting(DROP_ENTRY, 3), *starts, wait(1),
                 *starts[:2]],
        'local-ports': [service, add_server(key, 1, FULLNAT), *starts[:5], bytes([LOCAL, 4 + 2]),
                        bytes([LOCAL, 0]), *starts[5:6], bytes([LOCAL, 4 + 8, key]), *starts[6:7],
                        wait(30), *starts[7:8]],
        'too-big': [udp_service, add_server(udp_key, 1, TUN),
                    burst(large(), large(source='192.0.2.9'), large(fragment=0)),
                    setting(PMTU_DISC, 0), burst(large())],
        'untranslatable': [
            udp_service, add_server(udp_key, 1, FULLNAT, v6=1),
            burst(frame(CLIENTS[0], VIPS[0], 'udp', udp(), ip_options=b'\x83\x07\x04\0\0\0\0\0')),
            burst(frame(CLIENTS[0], VIPS[0], 'udp', udp(summed=0), options=TO_US)),
            burst(error(4, 2, 6))],
    }


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)

    def write(name, script):
        (directory / name).write_bytes(script)

    for protocol, v6, mode in itertools.product(NUMBERS, (0, 1), range(len(MODES))):
        name = f'{protocol}-{6 if v6 else 4}-{MODES[mode]}'
        write(name, life(protocol, v6, mode))
        write(f'errors-{name}', about_errors(protocol, v6, mode))
    for v6, to_v6, tunnel in itertools.product((0, 1), (0, 1), TUNNELS):
        name = f'tunnel-{v6}{to_v6}-{tunnel[0]}{tunnel[1]}'
        write(name, life('udp', v6, TUN, tunnel, to_v6))
        write(f'errors-{name}', about_errors('tcp', v6, TUN, tunnel, to_v6))
    for protocol, v6 in itertools.product(NUMBERS, (0, 1)):
        write(f'nat64-{protocol}-{v6}', life(protocol, v6, FULLNAT, server_v6=1 - v6))
        write(f'errors-nat64-{protocol}-{v6}',
              about_errors(protocol, v6, FULLNAT, server_v6=1 - v6))
    orders = ('ordered', 'reversed', 'overlapping', 'doubled', 'large', 'contradicting', 'lost',
              'too-long', 'many')
    for v6, order in itertools.product((0, 1), orders):
        write(f'fragments-{v6}-{order}', fragmented(v6, NAT, order))
        write(f'fragments-{v6}-{order}-tun', fragmented(v6, TUN, order))
        write(f'fragments-{v6}-{order}-64', fragmented(v6, FULLNAT, order, server_v6=1 - v6))
    write('fragments-tiny', tiny_fragments())
    for v6, mode in itertools.product((0, 1), range(len(MODES))):
        write(f'associations-{v6}-{MODES[mode]}', associations(v6, mode))
    for protocol, v6, other, how in itertools.product(('tcp', 'udp'), (0, 1), (0, 1), (TOA, PROXY)):
        write(f'told-{protocol}-{v6}{other}-{how}', told(protocol, v6, how, other))
    for v6, protocol in itertools.product((0, 1), ('tcp', 'udp')):
        family = f'{protocol}-{6 if v6 else 4}'
        write(f'persistent-{family}', many_clients(protocol, v6, PERSISTENT | BY_NETWORK))
        write(f'alone-{family}', many_clients(protocol, v6, ONE_PACKET))
        write(f'alone-persistent-{family}', many_clients(protocol, v6, ONE_PACKET | PERSISTENT))
        write(f'thresholds-{family}', many_clients(protocol, v6, 0, 3 + 8))
        write(f'marked-{family}', many_clients(protocol, v6, PERSISTENT, mark=True))
    for v6, (number, name) in itertools.product((0, 1), enumerate(SCHEDULERS)):
        write(f'scheduler-{name}-{v6}', many_clients('tcp', v6, FLAGS, scheduler=number))
    write('scheduler-conhash', many_clients('tcp', 0, scheduler=CONHASH))
    write('refusal-damaged', damaged())
    for name, script in {**unserved(), **shortages()}.items():
        write(f'refusal-{name}', b''.join(script))
    directory.touch()  # a build compares its time with this program's


main()
