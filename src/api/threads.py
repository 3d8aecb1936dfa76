"""Work that takes minutes, in a thread of its own."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def run_in_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Start `work` in a new thread; the future holds what it returns or raises. Cancelling that leaves `work` running.

    Not in a pool: long work would take the places of short requests. A daemon, so that a server which has waited long
    enough for it can end. Log lines of the thread carry the caller's context.
    """
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(work)
        except Exception as error:
            outcome.set_exception(error)
        except BaseException as error:  # SystemExit would end the event loop of whoever awaits it
            outcome.set_exception(RuntimeError(f"{name} ended by {error!r}"))
        else:
            outcome.set_result(result)

    Thread(target=run, name=name, daemon=True).start()
    return asyncio.wrap_future(outcome)
