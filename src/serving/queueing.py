"""When a request reaches the model: in the event loop or beside it, alone or with others, or not at all.

A quick model answers in the event loop, and what arrived in one turn of it is predicted together; the only client is
answered at once. Others run in a thread, while /health goes on being answered; what came meanwhile is predicted
together next. What may wait is bounded by the time it would wait.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from .asking import Asking, Operation
from .loaded import NotQuick
from .messages import Answer, Request
from .metrics import Metrics
from .problems import problem

log = logging.getLogger(__name__)

QUICK_BYTES = 16 * 1024
"""Size of a body from which on it is not read in the event loop, where others would wait for it."""

QUEUE_SECONDS = 1.0
"""How long a request may have to wait; one that would wait for longer is answered 503 at once."""

QUEUE_MIN = 64
"""As many may wait however slow the model is."""

QUEUE_BYTES = 256 * 1024**2
"""Of bodies that wait, together."""

BATCH = 256
"""Requests that are predicted together at most."""

TURN_SECONDS = 0.001
"""How long a quick model that predicts one request after the other may keep the event loop from others."""

BESIDE_SECONDS = 0.0003
"""What a request that is predicted alone takes beside that, when many ask: its turn of the event loop, its reading."""

_FULL = problem(
    503,
    "overloaded",
    "More requests wait than the model answers in time. Try again later.",
    headers={b"retry-after": str(math.ceil(QUEUE_SECONDS)).encode()},
)

_FAILED = problem(500, "internal_error", "The server failed. Its log says why.")

Done = Callable[[Answer], None]

_Waiting = tuple[Request, Done]


class Queue:
    """The requests of one operation. `thread`: where it runs what is not quick; one at a time."""

    def __init__(self, operation: Operation, thread: ThreadPoolExecutor, metrics: Metrics) -> None:
        assert operation.model is not None
        self._model = operation.model
        self._quick = operation.quick
        self._thread = thread
        self._metrics = metrics
        self._arrived: list[_Waiting] = []
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._running: asyncio.Task[None] | None = None
        cost = operation.cost
        each = None if cost is None else (cost.each if operation.model.many else cost.one)
        beside = 0 if operation.model.many else BESIDE_SECONDS
        self._limit = QUEUE_MIN if not each else max(QUEUE_MIN, int(QUEUE_SECONDS / (each + beside)))
        self._turn = BATCH if operation.model.many or not each else max(1, min(BATCH, int(TURN_SECONDS / each)))

    def ask(self, request: Request, done: Done, *, alone: bool) -> None:
        """Call `done`, now or later, with the operation's answer, or 503 where too many wait.

        `alone`: whether no other client could ask in this turn of the event loop.
        """
        quick = self._quick
        if quick is None or len(request.body) > QUICK_BYTES:
            self._ask_beside(request, done)
        elif alone and not self._arrived:
            self._ask_quickly(quick, request, done)
        elif len(self._arrived) >= self._limit:
            done(_FULL)
        else:
            if not self._arrived:
                asyncio.get_running_loop().call_soon(self._answer_arrived)
            self._arrived.append((request, done))

    def _answer_arrived(self) -> None:
        """In the event loop, after all that had arrived with the first."""
        quick = self._quick
        assert quick is not None
        batch, self._arrived = self._arrived[: self._turn], self._arrived[self._turn :]
        if self._arrived:  # others than these get their turn in between
            asyncio.get_running_loop().call_soon(self._answer_arrived)
        answers = _together(quick, [request for request, _ in batch])
        if answers is None:
            for request, done in batch:
                self._ask_quickly(quick, request, done)
        else:
            self._metrics.batch(len(batch))
            for (_, done), answer in zip(batch, answers, strict=True):
                done(answer)

    def _ask_quickly(self, quick: Asking, request: Request, done: Done) -> None:
        try:
            answer = _one(quick, request)
        except NotQuick:
            self._ask_beside(request, done)
        else:
            self._metrics.batch(1)
            done(answer)

    def _ask_beside(self, request: Request, done: Done) -> None:
        if len(self._waiting) >= self._limit or (self._waiting and self._bytes + len(request.body) > QUEUE_BYTES):
            done(_FULL)
            return
        self._waiting.append((request, done))
        self._bytes += len(request.body)
        self._metrics.queued(1)
        if self._running is None:
            self._running = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = self._next()
            self._metrics.queued(-len(batch))
            self._metrics.batch(len(batch))
            answers = await loop.run_in_executor(self._thread, _ask, self._model, [request for request, _ in batch])
            for (request, done), answer in zip(batch, answers, strict=True):
                self._bytes -= len(request.body)
                done(answer)
        self._running = None

    def _next(self) -> list[_Waiting]:
        """What is asked next: several small ones where the model takes them together, else one."""
        batch = [self._waiting.popleft()]
        if self._model.many is not None and len(batch[0][0].body) <= QUICK_BYTES:
            while self._waiting and len(batch) < BATCH and len(self._waiting[0][0].body) <= QUICK_BYTES:
                batch.append(self._waiting.popleft())
        return batch


def _ask(model: Asking, requests: Sequence[Request]) -> list[Answer]:
    return _together(model, requests) or [_one(model, request) for request in requests]


def _together(model: Asking, requests: Sequence[Request]) -> list[Answer] | None:
    """None where each is to be asked alone, which then tells the one that is not quick, or fails, from the others."""
    if len(requests) == 1 or model.many is None:
        return None
    try:
        return model.many(requests)
    except NotQuick:
        return None
    except Exception:
        log.exception("several requests cannot be answered together")
        return None


def _one(model: Asking, request: Request) -> Answer:
    """Raises NotQuick."""
    try:
        return model.one(request)
    except NotQuick:
        raise
    except Exception:
        log.exception("a request cannot be answered")
        return _FAILED
