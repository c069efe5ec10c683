# SPDX-License-Identifier: Apache-2.0
"""Network namespaces and the processes in them. Everything made here is taken away by close()."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import threading
import time

PREFIX = 'weirlab'
_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_counter = iter(range(1_000_000))


class LabError(Exception):
    """The lab could not do what it was asked; the message says why."""


def wait_until(condition, what, seconds=10.0, interval=0.02):
    """Polls condition() until it is true and returns its value; LabError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f'{what}: not within {seconds:g} s')
        time.sleep(interval)


def run(*command, check=True, seconds=60.0, **options):
    """Runs a command to its end and returns it with its output as text."""
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True,
                          timeout=seconds, **options)
    if check and done.returncode != 0:
        raise LabError(f'{" ".join(map(str, command))}: exit code {done.returncode}\n'
                       f'{done.stdout}{done.stderr}'.rstrip())
    return done


def remove_leftovers():
    """Deletes the namespaces of labs whose process is gone (killed before it could clean up)."""
    for line in run('ip', 'netns', 'list').stdout.splitlines():
        match = re.match(rf'({PREFIX}-(\d+)-\S+)', line)
        if match and not os.path.exists(f'/proc/{match[2]}'):
            run('ip', 'netns', 'delete', match[1], check=False)


def _die_with_parent():
    # After the fork: a lab that is killed takes its servers with it.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A running command. Its output goes to a file, so that it can never block on a pipe."""

    def __init__(self, command, log_path, wrapper=(), stdin=subprocess.DEVNULL, **options):
        self.log_path = log_path
        self.name = os.path.basename(str(command[0]))
        with open(log_path, 'ab') as log:
            self._child = subprocess.Popen([str(word) for word in (*wrapper, *command)],
                                           stdin=stdin, stdout=log, stderr=log,
                                           preexec_fn=_die_with_parent, **options)
        self.pid = self._child.pid

    @property
    def exit_code(self):
        """None while it runs, else the code, negative for a signal."""
        return self._child.poll()

    def write(self, text):
        """To one that was started with stdin=subprocess.PIPE."""
        self._child.stdin.write(text.encode())
        self._child.stdin.flush()

    def close_input(self):
        self._child.stdin.close()

    def output(self):
        with open(self.log_path, encoding='utf-8', errors='replace') as log:
            return log.read()

    def wait(self, seconds=10.0):
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise LabError(f'{self.name} still runs after {seconds:g} s') from error

    def wait_for_output(self, text, seconds=10.0):
        """Waits for a text in the output; a process that ends without it is an error."""
        def seen():
            ended = self.exit_code is not None
            if text in self.output():
                return True
            if ended:
                raise LabError(f'{self.name} ended with exit code {self.exit_code} before it '
                               f'said "{text}":\n{self.output()}')
            return False
        wait_until(seen, f'"{text}" from {self.name}', seconds)

    def stop(self, signal_number=signal.SIGTERM, seconds=10.0):
        """Signals and waits; kills what does not end in time. Returns the exit code."""
        if self.exit_code is None:
            self._child.send_signal(signal_number)
            try:
                self._child.wait(seconds)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        return self.exit_code


class Namespace:
    """One host of the lab: a network namespace of its own, loopback up."""

    def __init__(self, role, directory):
        self.role = role
        self.name = f'{PREFIX}-{os.getpid()}-{next(_counter)}-{role}'
        self.directory = directory
        self.processes = []
        try:
            self._make()
        except BaseException:
            run('ip', 'netns', 'delete', self.name, check=False)
            raise

    def _make(self):
        run('ip', 'netns', 'add', self.name)
        # No duplicate-address detection, no router discovery: addresses work at once, and only the
        # traffic of the test is on the wire.
        self.sysctl({'net.ipv6.conf.all.accept_dad': 0, 'net.ipv6.conf.default.accept_dad': 0,
                     'net.ipv6.conf.default.accept_ra': 0,
                     'net.ipv6.conf.default.router_solicitations': 0})
        self.ip('link set lo up')

    def sysctl(self, settings):
        self.run('sysctl', '-q', '-w', *(f'{name}={value}' for name, value in settings.items()))

    def ip(self, *lines, check=True):
        """Runs lines of `ip` commands in one batch."""
        return run('ip', '-n', self.name, '-batch', '-', input='\n'.join(lines) + '\n',
                   check=check)

    def run(self, *command, **options):
        return run('ip', 'netns', 'exec', self.name, *command, **options)

    def start(self, *command, log=None, **options):
        log_path = os.path.join(self.directory, log or f'{self.role}-{len(self.processes)}.log')
        process = Process(command, log_path, ('ip', 'netns', 'exec', self.name), **options)
        self.processes.append(process)
        return process

    @contextlib.contextmanager
    def entered(self):
        """Sockets that this thread opens inside belong to the namespace, and stay there."""
        own = os.open(f'/proc/self/task/{threading.get_native_id()}/ns/net', os.O_RDONLY)
        other = os.open(f'/run/netns/{self.name}', os.O_RDONLY)
        try:
            self._set(other)
            yield
        finally:
            self._set(own)
            os.close(own)
            os.close(other)

    @staticmethod
    def _set(descriptor):
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise LabError(f'setns: {os.strerror(ctypes.get_errno())}')

    def close(self):
        for process in reversed(self.processes):
            process.stop(seconds=5.0)
        run('ip', 'netns', 'delete', self.name, check=False)
