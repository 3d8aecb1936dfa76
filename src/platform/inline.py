"""A stack's program inside this process, which outlives each of its runs.

Pulumi's language host leaves it to the end of its process to stop what waits for an engine that is gone.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
from pulumi.errors import RunError
from pulumi.runtime import _grpc_settings
from pulumi.runtime.settings import get_engine

# Without it, an engine on a port that a dead one had is taken to be dead, too, for up to two minutes: the program ends,
# and what it did not come to declare is deleted. https://grpc.github.io/grpc/core/group__grpc__arg__keys.html
_grpc_settings._GRPC_CHANNEL_OPTIONS.append(("grpc.use_local_subchannel_pool", 1))


def _is_news(record: logging.LogRecord) -> bool:
    """False for what a program raises past the language host because its engine is gone; gRPC would log it."""
    return record.exc_info is None or not isinstance(record.exc_info[1], RunError)


logging.getLogger("grpc._server").addFilter(_is_news)


class InlineProgram:
    """A program that can be ended. `end` is for when the engine is done with a run of it, whatever came of that."""

    def __init__(self, program: Callable[[], None]) -> None:
        self._program = program
        self._stop: Callable[[], object] = lambda: None

    def __call__(self) -> None:
        """Called by the language host, in an event loop and a thread of its own."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._stop = lambda: loop.call_soon_threadsafe(lambda: loop.create_task(_cancel(task)))
        _tell_only_the_living(get_engine())
        self._program()

    def end(self) -> None:
        """Stop what still waits: after a failure, for outputs that will never come."""
        with suppress(RuntimeError):  # The loop is closed, as it should be.
            self._stop()


async def _cancel(task: asyncio.Task[Any]) -> None:
    """What it waits for first: the language host takes any other end of that for a fault of its own."""
    others = asyncio.all_tasks() - {task, asyncio.current_task()}
    for other in others:
        other.cancel()
    if others:
        await asyncio.wait(others)
    task.cancel()


def _tell_only_the_living(engine: Any) -> None:
    """Let what is logged be lost where the engine is gone, instead of a traceback of it in our own log."""
    log = engine.Log

    def tell(request: Any) -> None:
        with suppress(grpc.RpcError):
            log(request)

    engine.Log = tell
