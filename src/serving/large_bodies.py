"""The second process of a worker: it answers requests with large bodies, whose reading would hold up other clients.

It is forked before the worker loads its model, and sleeps. The first such request wakes it, upon which it loads the
model, too. When it has, or at once where that is certain to succeed, the client's connection is handed over to it for
good, with what was read from it.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial

import uvloop

from .application import Application
from .http_connection import Connection
from .http_server import Server

log = logging.getLogger(__name__)

NICE = 10
"""Where the two share a core, the worker comes first (nice(2))."""

LOAD_SECONDS = 30.0
"""How long large bodies wait for it to load the model, before the worker reads them itself."""

_WAKE, _TAKE, _DRAIN, _END, _READY = b"w", b"t", b"d", b"e", b"r"


class LargeBodies:
    """The worker's view of it. `ready`: whether it is handed connections; may be set before it has loaded the model."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.ready = False
        self._pid = pid
        self._control = control
        self._woken: float | None = None
        self._draining = False

    def take(self, connection: int, begun: bytes) -> bool | None:
        """Hand over a client's connection, of which `begun` was read. False: it cannot be and stays the worker's.

        None: it may be soon, when the model has been loaded.
        """
        if self._draining:
            return False
        if not self.ready and not (loaded := self._loaded()):
            return loaded
        try:
            with os.fdopen(os.memfd_create("begun"), "wb") as file:
                file.write(begun)
                file.flush()
                socket.send_fds(self._control, [_TAKE], [connection, file.fileno()], socket.MSG_DONTWAIT)
        except OSError:  # it has ended, or has much to do
            return False
        return True

    def drain(self) -> None:
        """Let it begin to end, as `Server.drain`; it is handed no more."""
        self._draining = True
        self._tell(_DRAIN)

    def end(self, seconds: float) -> None:
        """Let it end, as `Server.end`; returns when it has, or after that time."""
        self._tell(_END)
        self._control.settimeout(seconds)
        with contextlib.suppress(TimeoutError, ChildProcessError):
            with contextlib.suppress(ConnectionError):  # as which it ends where it has not read all
                while self._control.recv(1):
                    pass
            os.waitpid(self._pid, 0)

    def _loaded(self) -> bool | None:
        """Whether it says so; it is woken first. None: it has not had its time yet."""
        if self._woken is None:
            self._woken = time.monotonic()
            self._tell(_WAKE)
        try:
            self.ready = self._control.recv(1, socket.MSG_DONTWAIT) == _READY
        except BlockingIOError:
            return None if time.monotonic() - self._woken < LOAD_SECONDS else False
        except OSError:
            return False
        return self.ready

    def _tell(self, what: bytes) -> None:
        with contextlib.suppress(OSError):
            self._control.send(what, socket.MSG_DONTWAIT)


def fork(application: Callable[[], Application], not_mine: Iterable[socket.socket]) -> LargeBodies | None:
    """Start it. `application`: what it serves, made when it is needed; `not_mine`: sockets that the worker alone has.

    No thread may run yet. None where the system has no way to hand over what was read.
    """
    if not hasattr(os, "memfd_create"):
        return None
    ours, theirs = socket.socketpair()
    if pid := os.fork():
        theirs.close()
        return LargeBodies(pid, ours)
    try:
        for inherited in (*not_mine, ours):
            inherited.close()
        for number in (signal.SIGINT, signal.SIGTERM):  # it ends with the worker
            signal.signal(number, signal.SIG_IGN)
        _run(application, theirs)
    except BaseException:
        log.exception("the process for large bodies failed")
    finally:
        os._exit(0)


def _run(application: Callable[[], Application], control: socket.socket) -> None:
    if control.recv(1, socket.MSG_PEEK) not in (_WAKE, _TAKE):
        return
    os.nice(NICE)
    served = application()
    control.send(_READY)
    loop = uvloop.new_event_loop()
    loop.run_until_complete(_serve(served, control))
    served.close()


async def _serve(application: Application, control: socket.socket) -> None:
    server = Server([], lambda _: None)
    serving = asyncio.ensure_future(server.serve([]))
    listening = asyncio.ensure_future(_listen(application, server, control))
    await asyncio.wait([serving, listening], return_when=asyncio.FIRST_COMPLETED)
    if listening.done():
        listening.result()
    await serving


async def _listen(application: Application, server: Server, control: socket.socket) -> None:
    """Do what the worker tells, one thing after the other. The end of the stream: it is gone."""
    loop = asyncio.get_running_loop()
    while True:
        what, descriptors, _flags, _address = await loop.run_in_executor(None, socket.recv_fds, control, 1, 2)
        if what == _TAKE:
            client, file = descriptors
            with os.fdopen(file, "rb") as read:
                read.seek(0)
                begun = read.read()
            made = partial(Connection, application, server, begun)
            await loop.connect_accepted_socket(made, socket.socket(fileno=client))
        elif what == _DRAIN:
            server.drain()
        elif what != _WAKE:
            server.end()
            return
