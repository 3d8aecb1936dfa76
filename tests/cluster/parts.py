"""The programs that a cluster consists of, as processes of the harness."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from .leftovers import MARK
from .model import HarnessError

_POLL_SECONDS: Final = 0.05


class Parts:
    """Processes that run as long as this says, each with a log of its own in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str | Path]) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                cwd=self._folder,
                env={**os.environ, MARK: str(self._folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, until: Callable[[], bool], what: str, seconds: float) -> None:
        """Return when `until` says so. Raises HarnessError when that takes too long or a part has ended."""
        deadline = time.monotonic() + seconds
        while not until():
            self.check()
            if time.monotonic() > deadline:
                raise HarnessError(f"{what}: not after {seconds:.0f} s.", self._tails(*self._running))
            time.sleep(_POLL_SECONDS)

    def check(self) -> None:
        """Raises HarnessError when a part has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise HarnessError(f"{name} ended with exit code {process.returncode}.", self._tails(name))

    def kill(self) -> None:
        """All at once, and hard: nothing of what they keep is used again."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()
        self._running.clear()

    def _tails(self, *names: str) -> list[str]:
        lines = []
        for name in names:
            lines += [f"--- {name}", *(self._folder / f"{name}.log").read_text(errors="replace").splitlines()[-10:]]
        return lines
