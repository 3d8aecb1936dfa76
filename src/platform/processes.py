"""Process trees: who belongs to one, what memory it holds, and its end."""

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

_END_SECONDS: Final = 10.0


def tree(pid: int) -> list[psutil.Process]:
    """The processes below `pid`, without itself; empty when it is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def run_from(folder: Path) -> bool:
    """Whether a process's program, or a file that it was given, lies in the folder."""
    return any(
        argument.startswith(f"{folder}/")
        for process in psutil.process_iter(["cmdline"])
        for argument in process.info["cmdline"] or ()
    )


def exceeds(processes: Iterable[psutil.Process], limit_bytes: int) -> bool:
    """Whether the processes together hold more memory than that; what they share counts once.

    Resident sizes are cheap to read and count shared pages again in each process; only where their sum passes the limit
    are the proportional sizes added up.
    """
    processes = list(processes)
    return sum(map(_resident, processes)) > limit_bytes and sum(map(_proportional, processes)) > limit_bytes


def end_marked(variable: str, value: str) -> None:
    """Kill every process whose environment began with this variable, until none is left."""
    deadline = time.monotonic() + _END_SECONDS
    while (found := _marked(variable, value)) and time.monotonic() < deadline:
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=1.0)


def _marked(variable: str, value: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(variable) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _proportional(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    return 0
