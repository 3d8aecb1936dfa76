"""The workers of one version: held to their memory, brought back when they die, let go without a lost request."""

import asyncio
import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace

from .desired import ApplyFailed, Desired
from .processes import resident_bytes, taken_bytes
from .server_log import Write
from .template_process import Template
from .worker_process import TAIL_LINES, Worker

MEMORY_POLL_SECONDS = 0.2
MEMORY_IDLE_SECONDS = 1.0
"""When the workers' memory is looked at again: sooner where it changes. Fifty idle models would use a core's tenth."""

STEADY_SECONDS = 10.0
"""A worker that has lived this long after it became healthy counts as steady: its death is the first of a row."""

RESTART_CAPS = {True: 1.0, False: 30.0}
"""Seconds between restarts at most, by whether the one that died had been healthy."""

DRAINING_SECONDS = 5.0
"""How long to wait for a worker that is let go to say that it accepts no more."""


class ReplicaSet:
    """One version. `listeners`: as in `worker.run`; `write`: takes every line its processes print."""

    def __init__(
        self, desired: Desired, environment: Mapping[str, str], listeners: Sequence[socket.socket], write: Write
    ) -> None:
        self.desired = desired
        self.environment = dict(environment)
        self.workers: list[Worker] = []
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.last_failure: ApplyFailed | None = None
        self._listeners = listeners
        self._log = write
        self._template: Template | None = None
        self._template_lock = asyncio.Lock()
        self._alive: set[Worker] = set()
        self._quick_deaths = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._memory = asyncio.ensure_future(self._hold_memory())

    @property
    def ready(self) -> bool:
        """Whether as many workers serve as are desired."""
        return sum(w.serving.done() and not w.ended.done() for w in self.workers) == self.desired.replicas

    async def grow(self, count: int) -> None:
        """Add `count` workers; none serves before all are healthy. Raises ApplyFailed; those it added end."""
        added: list[Worker] = []
        try:
            for _ in range(count):
                added.append(await self._fork())
            await _all(worker.healthy for worker in added)
            # One that is quicker than the next look at its memory must not slip through.
            for worker in self._end_the_greedy(self._memory_used()):
                if worker in added:
                    await worker.ended
                    raise worker.failure()
            for worker in added:
                worker.go()
            await _all(worker.serving for worker in added)
        except BaseException:
            for worker in added:
                self._spawn(worker.end(at_once=False))
            raise
        self.workers += added
        for worker in added:
            self._spawn(self._keep(worker))

    async def wait_ready(self) -> None:
        """Wait until as many workers serve as are desired: dead ones come back."""
        while not self.ready:
            await asyncio.sleep(0.05)

    async def shrink(self, count: int) -> None:
        """Let the last `count` workers go; returns when they accept no more connections, before they have ended."""
        await self._release([self.workers.pop() for _ in range(min(count, len(self.workers)))], at_once=False)

    async def retire(self, *, at_once: bool = False) -> None:
        """Let all workers go, as in `shrink`; `at_once`: cut connections on which nothing is being answered."""
        going, self.workers = self.workers, []
        await self._release(going, at_once=at_once)

    async def close(self, *, at_once: bool = False) -> None:
        """Retire, and wait until every process is gone."""
        await self.retire(at_once=at_once)
        if at_once:
            await asyncio.gather(*(worker.end(at_once=True) for worker in self._alive))
        while self._alive:
            await asyncio.wait([worker.ended for worker in self._alive])
            await asyncio.sleep(0)
        async with self._template_lock:
            if self._template is not None:
                self._template.kill()
                await asyncio.wait([self._template.ended], timeout=5)
        for task in (self._memory, *self._tasks):
            task.cancel()
        await asyncio.gather(self._memory, *self._tasks, return_exceptions=True)

    def with_replicas(self, replicas: int) -> None:
        """Record another number of workers as the desired one."""
        self.desired = replace(self.desired, replicas=replicas)

    async def _release(self, workers: Sequence[Worker], *, at_once: bool) -> None:
        for worker in workers:
            self._spawn(worker.end(at_once=at_once))
        serving = [worker for worker in workers if worker.serving.done()]
        if serving and not at_once:
            await asyncio.wait([worker.draining for worker in serving], timeout=DRAINING_SECONDS)

    async def _fork(self) -> Worker:
        async with self._template_lock:
            if self._template is None or self._template.ended.done():
                self._template = await Template.start(self.desired, self.environment, self._line)
            worker = await self._template.fork(self._listeners, self._line)
        self._alive.add(worker)
        worker.ended.add_done_callback(lambda _: self._alive.discard(worker))
        return worker

    async def _keep(self, worker: Worker) -> None:
        """Bring a worker back whenever it dies, until it is let go: at once, and later while it keeps dying."""
        while True:
            await asyncio.wait([worker.ended])
            if worker not in self.workers:
                return
            self.last_failure = worker.failure()
            self._log(os.getpid(), f"worker {worker.pid} {worker.how_it_ended()}; starting another")
            since = worker.healthy_since
            if since is not None and time.monotonic() - since > STEADY_SECONDS:
                self._quick_deaths = 0
            if self._quick_deaths:
                await asyncio.sleep(min(RESTART_CAPS[since is not None], 0.1 * 2**self._quick_deaths))
            self._quick_deaths = min(self._quick_deaths + 1, 10)
            try:
                successor = await self._fork()
            except ApplyFailed as error:
                self._log(os.getpid(), error.message)
                worker.healthy_since = None
                continue
            if worker not in self.workers:
                await successor.end(at_once=True)
                return
            self.workers[self.workers.index(worker)] = worker = successor
            with contextlib.suppress(ApplyFailed):
                await asyncio.shield(worker.healthy)
                worker.go()
                await asyncio.shield(worker.serving)
                self.last_failure = None
                self._log(os.getpid(), f"worker {worker.pid} serves")

    async def _hold_memory(self) -> None:
        former: dict[Worker, int] = {}
        while True:
            used = self._memory_used()
            self._end_the_greedy(used)
            await asyncio.sleep(MEMORY_IDLE_SECONDS if used == former else MEMORY_POLL_SECONDS)
            former = used

    def _memory_used(self) -> dict[Worker, int]:
        return {worker: resident_bytes(worker.pid) for worker in self._alive}

    def _end_the_greedy(self, used: Mapping[Worker, int]) -> list[Worker]:
        """Kill the workers that are over the memory limit; gives them."""
        limit = self.desired.memory_limit_bytes
        taken = {worker: taken_bytes(worker.pid) for worker in used if used[worker] > limit}
        greedy = [worker for worker in taken if taken[worker] > limit]
        for worker in greedy:
            self._log(os.getpid(), f"worker {worker.pid}: {worker.kill_for_memory(taken[worker], limit)}")
        return greedy

    def _line(self, pid: int, text: str) -> None:
        self.tail.append(text)
        self._log(pid, text)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _all(futures: Iterable[asyncio.Future[None]]) -> None:
    """Wait for all, without ending them when the waiting is cancelled; raises the first one's exception."""
    waiting = list(futures)
    if waiting:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
        for future in done:
            future.result()
