"""The parent's view of one worker: what it said, what it printed, how it ended."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .desired import ApplyFailed
from .processes import kill_group

TAIL_LINES = 40
"""Last lines of output that tell why something failed."""

LINE_LIMIT = 16 * 1024
"""Bytes after which a line without an end is cut in two."""

DRAIN_SECONDS = 30.0
"""When a worker that was told to end is killed; it gives up by itself before that."""


class Worker:
    """One process that leads its group.

    `healthy`, `serving`, `draining` are done when it has said so, and raise ApplyFailed where it ended before; `code`
    has its exit code, where the template could tell; `ended` is done when it is gone, with all that it started.
    """

    def __init__(
        self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, code: asyncio.Future[int]
    ) -> None:
        self.pid = pid
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.healthy_since: float | None = None
        self.code = code
        self.following: asyncio.Future[None] | None = None
        loop = asyncio.get_running_loop()
        self.healthy: asyncio.Future[None] = loop.create_future()
        self.serving: asyncio.Future[None] = loop.create_future()
        self.draining: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._over_limit: str | None = None
        self._refused: tuple[str, str] | None = None
        self._reader = reader
        self._writer = writer

    def go(self) -> None:
        """Have a healthy worker serve."""
        self._writer.write(b"\n")

    async def end(self, *, at_once: bool) -> None:
        """Have it end: after what open connections send or (`at_once`) what it is answering. Kill it if it does not."""
        if _said(self.serving):  # one that does not serve has nothing to finish
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGINT if at_once else signal.SIGTERM)
            await asyncio.wait([self.ended], timeout=DRAIN_SECONDS)
        if not self.ended.done():
            kill_group(self.pid)
            await asyncio.wait([self.ended], timeout=5)

    def kill_for_memory(self, used: int, limit: int) -> str:
        """Kill it; the line for the log that says why."""
        self._over_limit = f"A worker used {used >> 20} MiB of memory; it may use {limit >> 20} MiB."
        line = f"OOMKilled: {self._over_limit}"
        self.tail.append(line)
        kill_group(self.pid)
        return line

    async def follow(self, output: int, write: Callable[[int, str], None]) -> None:
        """Read all it says, until it and its group are gone. `output`: the pipe of what it prints; closed here."""

        def line(text: str) -> None:
            self.tail.append(text)
            write(self.pid, text)

        printed = asyncio.ensure_future(read_lines(output, line))
        events = asyncio.ensure_future(self._read_events())
        try:
            # The template tells the exit code; the end of the stream is seen even when the template is gone. A process
            # that the worker forked may hold the stream open, and no one but the template's word ends the wait.
            waiting: list[asyncio.Future[Any]] = [events, self.code]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({self.code}, timeout=1)
            kill_group(self.pid)
            await asyncio.wait({printed}, timeout=1)
        finally:
            events.cancel()
            printed.cancel()
            self._writer.close()
            failure = self.failure()
            for future in (self.healthy, self.serving, self.draining):
                if not future.done():
                    future.set_exception(failure)
                    future.exception()  # marks it as seen: not every one is awaited
            self.ended.set_result(None)

    def failure(self) -> ApplyFailed:
        """Why it ended."""
        if self._over_limit is not None:
            return ApplyFailed("OOMKilled", self._over_limit, self.tail)
        if self._refused is not None:
            stage, error = self._refused
            return ApplyFailed("Unhealthy" if stage == "health" else "Crashed", error, self.tail)
        return ApplyFailed("Crashed", f"A worker {self.how_it_ended()}.", self.tail)

    def how_it_ended(self) -> str:
        """`ended with exit code 1`, `was ended by SIGKILL`."""
        return described(self.code.result()) if _said(self.code) else "ended"

    async def _read_events(self) -> None:
        with contextlib.suppress(OSError):
            while text := await self._reader.readline():
                event = json.loads(text)
                if event["event"] == "failed":
                    self._refused = event["stage"], event["error"]
                    continue
                if event["event"] == "healthy":
                    self.healthy_since = time.monotonic()
                future = {"healthy": self.healthy, "serving": self.serving, "draining": self.draining}[event["event"]]
                if not future.done():
                    future.set_result(None)


def described(code: int) -> str:
    """An exit code, negative for a signal, in words."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


async def read_lines(descriptor: int, line: Callable[[str], None]) -> None:
    """Call `line` for each line until the pipe's end; the descriptor is closed."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    rest = b""
    try:
        while chunk := await reader.read(64 * 1024):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LINE_LIMIT:
                lines, rest = [*lines, rest], b""
            for text in lines:
                line(text.decode(errors="replace").rstrip("\r"))
    finally:
        if rest:
            line(rest.decode(errors="replace"))
        transport.close()


async def open_pair() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, socket.socket]:
    """A connected pair: our end as streams, theirs to be inherited and then closed here."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    return reader, writer, theirs


def _said(future: asyncio.Future[None] | asyncio.Future[int]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
