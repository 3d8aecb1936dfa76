"""A deploy told as server-sent events while it runs.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from threading import Lock
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..answers import DeployAnswer
from ..progress import Progress, Stage
from .errors import problem, problem_json

MEDIA_TYPE: Final = "text/event-stream"

HEARTBEAT_SECONDS: Final = 15.0
"""Longest silence; what is between keeps connections that are silent for a minute or so from being cut."""

BUFFER_CHARACTERS: Final = 256 * 1024
"""Of output that a client has not read yet; what comes on top is left out."""


class ProgressBuffer:
    """Progress on its way from a deploy's threads to a client that may be slow.

    Never blocks the deploy: lines of output that find the buffer full are left out, and counted; stages never are.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, characters: int = BUFFER_CHARACTERS) -> None:
        self._loop = loop
        self._limit = characters
        self._lock = Lock()
        self._items: deque[Progress] = deque()
        self._size = 0
        self._left_out: tuple[Stage, int] | None = None
        self._filled = asyncio.Event()

    def add(self, progress: Progress) -> None:
        """An OnProgress: from any thread."""
        with self._lock:
            size = len(progress.text)
            if progress.kind == "log" and self._items and (self._left_out or self._size + size > self._limit):
                self._left_out = (progress.stage, self._left_out[1] + 1 if self._left_out else 1)
                return
            self._note_what_was_left_out()
            self._items.append(progress)
            self._size += size
            first = len(self._items) == 1
        if first:  # the reader takes all there is, so once is enough
            with suppress(RuntimeError):  # the loop is closed: the server has ended
                self._loop.call_soon_threadsafe(self._filled.set)

    async def take(self, timeout_seconds: float) -> list[Progress]:
        """All that has come, in order; empty after `timeout_seconds` or a `wake` without any."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._filled.wait(), timeout_seconds)
        self._filled.clear()
        with self._lock:
            self._note_what_was_left_out()
            taken = list(self._items)
            self._items.clear()
            self._size = 0
        return taken

    def wake(self) -> None:
        """Let `take` return; from the loop's thread."""
        self._filled.set()

    def _note_what_was_left_out(self) -> None:
        if self._left_out:
            stage, count = self._left_out
            self._items.append(
                Progress(stage, "log", f"[{count} lines left out: they came faster than they were read]")
            )
            self._left_out = None


async def events(
    buffer: ProgressBuffer, outcome: asyncio.Future[DeployAnswer], heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> AsyncIterator[bytes]:
    """`stage` and `log` events as they come, a comment in silence, last `result` or `error`; ends with the deploy."""
    outcome.add_done_callback(lambda _: buffer.wake())
    while True:
        ended = outcome.done()  # asked first: what was added before the end is then in the buffer
        if taken := await buffer.take(0 if ended else heartbeat_seconds):
            yield b"".join(map(_progress_event, taken))
        elif ended:
            break
        elif not outcome.done():
            yield b": heartbeat\n\n"
    try:
        yield _event("result", outcome.result().model_dump_json().encode())
    except Exception as error:
        yield _event("error", problem_json(problem(error)))


class EventStream(Response):
    """Sends to a client for as long as it listens, and lasts as long as its events even when nobody does.

    So a server that is told to end waits for the deploy of a client that went away, as for any request it is answering.
    (Starlette's StreamingResponse ends with its client.)
    """

    media_type = MEDIA_TYPE

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        # No length, no cache, and no buffering by nginx.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["Content-Length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        listening = True
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self._chunks:
            if listening:
                try:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                except OSError:  # how a server may say that the client is gone; uvicorn stays silent
                    listening = False
        if listening:
            with suppress(OSError):
                await send({"type": "http.response.body", "body": b""})


def wants_events(accept: str) -> bool:
    """Whether an Accept header names the media type of events, other than with weight 0."""
    for choice in accept.split(","):
        media_type, *parameters = (part.strip().lower() for part in choice.split(";"))
        if media_type == MEDIA_TYPE:
            return not any(_is_weight_zero(parameter) for parameter in parameters)
    return False


def _is_weight_zero(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    try:
        return name.strip() == "q" and float(value) == 0
    except ValueError:
        return False


def _progress_event(progress: Progress) -> bytes:
    text = "message" if progress.kind == "stage" else "line"
    return _event(progress.kind, json.dumps({"stage": progress.stage, text: progress.text}).encode("ascii"))


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)
