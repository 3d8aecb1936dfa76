"""When a request reaches the model: in the event loop or beside it, alone or with others, or not at all.

A quick model answers in the event loop, and what arrived in one turn of it is predicted together: that costs a lone
request nothing, as there is nothing to wait for. Others run in a thread, while /health goes on being answered; what
came meanwhile is predicted together next. What may wait is bounded by the time it would wait.
"""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from .asking import Asking, Operation
from .loaded import NotQuick
from .messages import Answer, Request
from .metrics import Metrics
from .problems import problem

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

_FULL = problem(
    503,
    "overloaded",
    "More requests wait than the model answers in time. Try again later.",
    headers={b"retry-after": str(math.ceil(QUEUE_SECONDS)).encode()},
)

_Waiting = tuple[Request, "asyncio.Future[Answer]"]


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
        self._limit = QUEUE_MIN if not each else max(QUEUE_MIN, int(QUEUE_SECONDS / each))

    async def answer(self, request: Request) -> Answer:
        """The operation's answer, or 503 where too many wait."""
        quick = self._quick
        if quick is None or len(request.body) > QUICK_BYTES:
            return await self._beside(request)
        try:
            if quick.many is None:
                return quick.one(request)
            return await self._with_others(request)
        except NotQuick:
            return await self._beside(request)

    async def _with_others(self, request: Request) -> Answer:
        if len(self._arrived) >= self._limit:
            return _FULL
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if not self._arrived:
            loop.call_soon(self._answer_arrived)
        self._arrived.append((request, future))
        return await future

    def _answer_arrived(self) -> None:
        """In the event loop, after all that had arrived with the first."""
        quick = self._quick
        assert quick is not None
        batch, self._arrived = self._arrived[:BATCH], self._arrived[BATCH:]
        if self._arrived:  # others than these get their turn in between
            asyncio.get_running_loop().call_soon(self._answer_arrived)
        self._metrics.batch(len(batch))
        answers = _together(quick, [request for request, _ in batch])
        for position, (request, future) in enumerate(batch):
            if future.done():  # cancelled: the client is gone
                continue
            try:
                future.set_result(quick.one(request) if answers is None else answers[position])
            except Exception as error:
                future.set_exception(error)

    async def _beside(self, request: Request) -> Answer:
        if len(self._waiting) >= self._limit or (self._waiting and self._bytes + len(request.body) > QUEUE_BYTES):
            return _FULL
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        self._bytes += len(request.body)
        self._metrics.queued(1)
        if self._running is None:
            self._running = asyncio.ensure_future(self._run())
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = self._next()
            self._metrics.queued(-len(batch))
            self._metrics.batch(len(batch))
            answers = await loop.run_in_executor(self._thread, _ask, self._model, [request for request, _ in batch])
            for (request, future), answer in zip(batch, answers, strict=True):
                self._bytes -= len(request.body)
                if not future.done():
                    future.set_result(answer)
        self._running = None

    def _next(self) -> list[_Waiting]:
        """What is asked next: several small ones where the model takes them together, else one."""
        batch = [self._waiting.popleft()]
        if self._model.many is not None and len(batch[0][0].body) <= QUICK_BYTES:
            while self._waiting and len(batch) < BATCH and len(self._waiting[0][0].body) <= QUICK_BYTES:
                batch.append(self._waiting.popleft())
        return batch


def _ask(model: Asking, requests: Sequence[Request]) -> list[Answer]:
    return _together(model, requests) or [model.one(request) for request in requests]


def _together(model: Asking, requests: Sequence[Request]) -> list[Answer] | None:
    if len(requests) == 1 or model.many is None:
        return None
    try:
        return model.many(requests)
    except NotQuick:  # one of them is not; which, is seen when each is asked alone
        return None
