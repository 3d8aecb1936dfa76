"""Starts workers by forking a process that has imported everything: a dead one is back in half a second.

Only imports happen before a fork: no thread runs and no library has opened a thread pool, both of which do not survive
one.
"""

import gc
import json
import os
import selectors
import signal
import socket
import stat
import sys
from pathlib import Path

from . import worker
from .loading import preload
from .metrics import SharedNumbers


def run(control: socket.socket, bundle: Path) -> None:
    """Fork a worker for each byte received, until the stream ends.

    With each byte come descriptors: the worker's status socket, a pipe for its output, the listening sockets. They are
    told apart by what they are, since the parent may be of another version of Asgard than the bundle.
    Answers are JSON lines: {"event": "imported"}, {"event": "forked", "pid": n}, {"event": "exited", "pid": n, "code":
    n}, the code as `os.waitstatus_to_exitcode` gives it.
    """
    control.set_inheritable(False)
    gc.disable()  # looking at what imports make takes a quarter of their time
    preload(bundle)
    gc.enable()
    gc.collect()
    gc.freeze()  # the collector would write to, and so copy, every page that the workers share
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    numbers = SharedNumbers()
    _tell(control, event="imported")
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is control:
                    message, descriptors, _flags, _address = socket.recv_fds(control, 1, 4)
                    if not message:
                        return
                    rows = numbers.take(), numbers.take()
                    pid = os.fork()
                    if pid == 0:
                        selector.close()
                        _become_worker(control, (woken, wake), descriptors, bundle, (numbers, rows))
                    for row in rows:
                        numbers.assign(row, pid)
                    for descriptor in descriptors:
                        os.close(descriptor)
                    _tell(control, event="forked", pid=pid)
                else:
                    os.read(woken, 4096)
            _reap(control, numbers)


def _reap(control: socket.socket, numbers: SharedNumbers) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        numbers.free(pid)
        _tell(control, event="exited", pid=pid, code=os.waitstatus_to_exitcode(status))


def _become_worker(
    control: socket.socket,
    wakeup: tuple[int, int],
    descriptors: list[int],
    bundle: Path,
    counted: tuple[SharedNumbers, tuple[int, int]],
) -> None:
    """In the child; does not return."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        status, output, listeners = _told_apart(descriptors)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for descriptor in (output, *wakeup):
            os.close(descriptor)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()  # or all workers would draw the same numbers
        numbers, (row, row_of_second) = counted
        second = worker.fork_second(bundle, numbers, row_of_second, (*listeners, status))
        code = worker.run(listeners, status, bundle, numbers, row, second)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _told_apart(descriptors: list[int]) -> tuple[socket.socket, int, list[socket.socket]]:
    """The status socket, the output, the listening sockets."""
    (output,) = (one for one in descriptors if stat.S_ISFIFO(os.fstat(one).st_mode))
    sockets = [socket.socket(fileno=one) for one in descriptors if one != output]
    (status,) = (one for one in sockets if one.family == socket.AF_UNIX)
    return status, output, [one for one in sockets if one is not status]


def _tell(control: socket.socket, **fields: object) -> None:
    try:
        control.sendall(json.dumps(fields).encode() + b"\n")
    except OSError:
        sys.exit(0)  # the parent is gone
