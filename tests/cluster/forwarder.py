"""TCP from an address of the load balancer to the ready endpoints of a Service."""

import asyncio
import itertools
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

Endpoint = tuple[str, int]
"""Address and port of a pod."""

_CONNECT_SECONDS: Final = 5
_CHUNK: Final = 1 << 16
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing says that nobody was there, as a packet filter would."""


class Forwarder:
    """Listens on one address and port. A connection goes to an endpoint of the time it was made, and stays there.

    `endpoints`: those that take new connections now. With none, or one that does not answer, the connection is reset.
    """

    def __init__(self, endpoints: Callable[[], Sequence[Endpoint]]) -> None:
        self._endpoints = endpoints
        self._turn = itertools.count()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, address: str, port: int) -> None:
        """Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._accepted, address, port, backlog=1024)

    def close(self) -> None:
        """No new connections; those there are go on."""
        if self._server is not None:
            self._server.close()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        endpoints = self._endpoints()
        if not endpoints:
            _reset(writer)
            return
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                to_pod = await asyncio.open_connection(*endpoints[next(self._turn) % len(endpoints)])
        except OSError:
            _reset(writer)
            return
        await asyncio.gather(_pump(reader, to_pod[1]), _pump(to_pod[0], writer))
        for side in (writer, to_pod[1]):
            side.close()
            with suppress(OSError):
                await side.wait_closed()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Until the source ends, which the sink is told; until either is reset, and then the sink is too."""
    try:
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
    except OSError:
        _reset(sink)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
