"""Syntax trees that several threads want."""

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from asgard.platform import syntax

SECONDS = 0.7
MARKER = "python_version >= '3.11' and sys_platform == 'linux' and (platform_machine == 'x86_64' or os_name == 'nt')"


class Interrupting:
    """What is collected at any time, by Python code, in which another thread may get its turn."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        for _ in range(300):
            pass


@pytest.fixture
def busy() -> Iterator[None]:
    """Threads take turns, and garbage is collected, all the time."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(5)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)


@pytest.mark.parametrize(
    "make",
    [
        lambda: syntax.marker(MARKER),
        lambda: syntax.requirement(f"numpy<2; {MARKER}"),
        lambda: syntax.tree(b"f(a, [b, {'c': (1, 2)}])\n"),
    ],
    ids=["marker", "requirement", "tree"],
)
def test_threads_do_not_disturb_each_other(busy: None, make: Callable[[], object]) -> None:
    errors: list[SystemError] = []
    end = time.monotonic() + SECONDS

    def run() -> None:
        try:
            while time.monotonic() < end and not errors:
                Interrupting()
                make()
        except SystemError as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
