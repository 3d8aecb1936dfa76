"""Waiting for what happens in another process or thread."""

import time
from collections.abc import Callable
from typing import Any

SECONDS = 120.0


def until(condition: Callable[[], Any], what: str = "", seconds: float = SECONDS) -> Any:
    """The condition's first true value. Fails when there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what or condition}"
        time.sleep(0.02)
    return found
