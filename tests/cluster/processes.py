"""Commands that are run, and what is said while they last."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from .model import HarnessError

OnLog = Callable[[str], None]

_PROGRESS_SECONDS: Final = 10


def run(
    command: Sequence[str],
    *,
    what: str,
    on_log: OnLog,
    timeout_seconds: float,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Standard output and error of a command, run as a process group that does not outlive the call.

    `on_log` gets a line when it begins and every ten seconds. Raises HarnessError with the last lines of the output.
    """
    on_log(f"{what} …")
    started = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

        def lines() -> list[str]:
            output.seek(0)
            return output.read().splitlines()

        try:
            while process.poll() is None:
                elapsed = time.monotonic() - started
                if elapsed > timeout_seconds:
                    raise HarnessError(f"{what}: not done after {timeout_seconds:.0f} s.", lines()[-20:])
                try:
                    process.wait(_PROGRESS_SECONDS)
                except subprocess.TimeoutExpired:
                    so_far = lines()
                    on_log(f"{what}: {time.monotonic() - started:.0f} s, {len(so_far)} lines, now {so_far[-1:]}")
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode != 0:
            raise HarnessError(f"{what} failed: exit code {process.returncode}", lines()[-20:])
        return "\n".join(lines())
