"""Accepts connections on sockets that it was given, and lets go of them without losing a request."""

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from functools import partial

import uvloop

from .application import Application
from .http_connection import Connection
from .known_heads import KnownHeads

BACKLOG = 2048

DRAIN_SECONDS = 10.0
"""How long a server that is being replaced goes on answering on connections that were open."""

END_SECONDS = 10.0
"""How long what is being answered at the very end may take."""


class Server:
    """SIGTERM: accept no more, answer what comes on open connections, close them, end. SIGINT: end after what runs.

    Closing the accept and then waiting is what makes a hand-over lose no request: others accept on the same socket.
    `tell` is called with "serving" and "draining". `hand_over`: as `LargeBodies.take`, where there is somebody to take
    them. `now`, `date`: for connections, told anew each second while there are any.
    """

    def __init__(
        self,
        applications: Sequence[Application],
        tell: Callable[[str], None],
        hand_over: Callable[[int, bytes], bool | None] | None = None,
    ) -> None:
        self.connections: set[Connection] = set()
        self.known_heads = KnownHeads()
        self.hand_over = hand_over
        self.closing = False
        self.now = 0.0
        self.date = b""
        self._ticking = False
        self._applications = applications
        self._tell = tell
        self._drain, self._end = asyncio.Event(), asyncio.Event()

    def run(self, listeners: Sequence[socket.socket]) -> None:
        """Serve each application on its listener, until a signal ends it."""
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.add_signal_handler(signal.SIGTERM, self.drain)
        loop.add_signal_handler(signal.SIGINT, self.end)
        loop.run_until_complete(self.serve(listeners))

    async def serve(self, listeners: Sequence[socket.socket]) -> None:
        """Until `drain` or `end` is called, in a running event loop."""
        loop = asyncio.get_running_loop()
        servers = [
            await loop.create_server(partial(Connection, application, self), sock=listener, backlog=BACKLOG)
            for application, listener in zip(self._applications, listeners, strict=True)
        ]
        self._tell("serving")
        await self._drain.wait()
        self.closing = True
        for server in servers:
            server.close()
        self._tell("draining")
        await self._until_empty(DRAIN_SECONDS, self._end)
        for connection in list(self.connections):
            connection.close_when_idle()
        await self._until_empty(END_SECONDS)

    def drain(self) -> None:
        """Begin to end, in the event loop."""
        self._drain.set()

    def end(self) -> None:
        """End, in the event loop, without waiting for what clients might still ask."""
        self._end.set()
        self._drain.set()

    async def _until_empty(self, seconds: float, sooner: asyncio.Event | None = None) -> None:
        deadline = time.monotonic() + seconds
        while self.connections and time.monotonic() < deadline and not (sooner and sooner.is_set()):
            await asyncio.sleep(0.02)

    def connected(self, connection: Connection) -> None:
        """There is one more."""
        if not self._ticking:
            self._tell_time()
        self.connections.add(connection)

    def _tell_time(self) -> None:
        self.now = time.monotonic()
        self.date = formatdate(usegmt=True).encode()
        for connection in list(self.connections):
            connection.look(self.now)
        self._ticking = True
        asyncio.get_running_loop().call_later(1, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        if self.connections:
            self._tell_time()
