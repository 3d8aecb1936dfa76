"""Runs between the API and a script, so that nothing the script started outlives it. Standard library only.

    python -I script_runner.py PYTHON SCRIPT

Orphans of the script's tree fall to it (Linux: it is a child subreaper), whatever session they put themselves in. When
the script ends, or when the standard input closes because the API asks for it or is gone, the whole tree is killed.
The wait status of the script goes to the standard output; the script's own output goes to the standard error.

Killed last are Python's and joblib's resource trackers: once the others are gone they remove what those left in shared
memory, which no process holds and so nobody else would.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_TRACKER = b"resource_tracker import main"
_TRACKERS_SECONDS = 3.0
"""How long they may take to end by themselves."""


def main(python: str, script: str) -> int:
    adopt_orphans()
    child = subprocess.Popen(
        [python, script], stdin=subprocess.DEVNULL, stdout=2, stderr=2, start_new_session=True, restore_signals=True
    )
    supervise(child.pid)
    return 0


def adopt_orphans() -> None:
    """Have the descendants whose parents end become children of this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def supervise(pid: int) -> None:
    """Wait for the script with this pid, or for being told to end it; then end the tree and tell its status."""
    threading.Thread(target=_kill_when_told, daemon=True).start()
    status = _wait(pid)
    _kill_all()
    os.write(1, str(status).encode())


def _wait(pid: int) -> int:
    """Reap whatever ends until the script has; gives its wait status."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return status


def _kill_when_told() -> None:
    while os.read(0, 1):
        pass
    _kill_descendants()


def _kill_all() -> None:
    deadline = time.monotonic() + _TRACKERS_SECONDS
    while _reap():
        _kill_descendants(trackers=time.monotonic() > deadline)
        time.sleep(0.005)


def _reap() -> bool:
    """Reap whatever has ended; whether anything is left."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
        return True
    return False


def _kill_descendants(*, trackers: bool = False) -> None:
    for pid in _descendants(os.getpid()):
        if trackers or not _is_tracker(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _is_tracker(pid: int) -> bool:
    with suppress(OSError):
        return _TRACKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, parent in _processes():
        children.setdefault(parent, []).append(pid)
    found, open_ = [], [root]
    while open_:
        below = children.get(open_.pop(), [])
        found += below
        open_ += below
    return found


def _processes() -> Iterator[tuple[int, int]]:
    """Process ids with their parents' ids."""
    if sys.platform != "linux":
        listing = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            pid, parent = line.split()
            yield int(pid), int(parent)
        return
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text(errors="replace")
            except OSError:
                continue  # it has ended
            yield int(folder.name), int(stat.rpartition(")")[2].split()[1])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
