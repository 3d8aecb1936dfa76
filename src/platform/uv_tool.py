"""Runs uv, the installer of the PyPI package `uv`, with the user's own cache, indexes, proxy and CA settings."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from uv import find_uv_bin

OnLog = Callable[[str], None]

# What would point uv at another project, environment or interpreter than the one it is told.
_REDIRECTING: Final = (
    "UV_FROZEN", "UV_ISOLATED", "UV_LOCKED", "UV_NO_SYNC", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON",
    "UV_SYSTEM_PYTHON", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY", "VIRTUAL_ENV", "CONDA_PREFIX",
)  # fmt: skip


class UvFailed(Exception):
    """uv ended with an error. `text`: what it printed."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class UvTimeout(UvFailed):
    """uv did not end in time."""


def run(*arguments: str, timeout_seconds: float, on_log: OnLog, environment: Mapping[str, str] | None = None) -> str:
    """Run uv and give its standard output; each line of its standard error goes to `on_log`. Raises UvFailed.

    uv builds nothing here (`--no-build`, wheels only), so none of the packages' code runs and it may see the caller's
    environment, which is where a private index gets its credentials from.
    """
    process = subprocess.Popen(
        [find_uv_bin(), "--no-progress", "--color=never", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=_environment() | dict(environment or {}),
    )
    errors: list[str] = []
    with process, _killed_after(process, timeout_seconds) as expired:
        reader = threading.Thread(target=_forward, args=(process, errors, on_log))
        reader.start()
        assert process.stdout is not None
        output = process.stdout.read()
        reader.join()
        code = process.wait()
    if expired.is_set():
        raise UvTimeout(f"uv {arguments[0]} did not end within {timeout_seconds:.0f} s")
    if code:
        raise UvFailed("\n".join(errors))
    return output


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _REDIRECTING and not name.startswith(("ASGARD_", "PULUMI_", "PYTHON"))
    }


@contextmanager
def _killed_after(process: subprocess.Popen[str], seconds: float) -> Iterator[threading.Event]:
    expired = threading.Event()

    def kill() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


def _forward(process: subprocess.Popen[str], lines: list[str], on_log: OnLog) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line.rstrip())
        on_log(line.rstrip())
