"""Lines that tell that something long goes on."""

import threading
import time
from collections.abc import Callable
from typing import Final

from ..uv_tool import OnLog

QUIET_SECONDS: Final = 2.0
"""How long something may take before it says so, and then between two lines."""


def counter(what: str, total: int, on_log: OnLog) -> Callable[[int], None]:
    """A function to call with each number of bytes done, from any thread. `total`: bytes of all."""
    lock = threading.Lock()
    done, due = 0, time.monotonic() + QUIET_SECONDS

    def count(size: int) -> None:
        nonlocal done, due
        with lock:
            done += size
            if time.monotonic() < due:
                return
            due = time.monotonic() + QUIET_SECONDS
            text = f"{what}: {done / 1e6:.0f} of {total / 1e6:.0f} MB"
        on_log(text)

    return count
