"""Helper processes of the API: a clean environment, a session of their own, and an end that comes with the API's.

Each holds the reading end of a pipe as its standard input and nothing is ever written to it: when the API ends, however
it ends, the kernel closes the writing end and the child sees it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

_NEEDED: Final = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
GRACE_SECONDS: Final = 5.0
"""Between being told to end and being killed."""


def start(
    module: str,
    *arguments: str | Path,
    output: int | IO[bytes],
    errors: int | IO[bytes],
    environment: Mapping[str, str],
) -> subprocess.Popen[bytes]:
    """Run `python -m asgard.platform.<module>` with this environment and nothing else of the API's."""
    return subprocess.Popen(
        [sys.executable, "-I", "-m", f"{__package__}.{module}", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=errors,
        env=environment,
        start_new_session=True,
    )


def bare_environment() -> dict[str, str]:
    """What every program needs of the API's environment; none of its secrets."""
    return {name: os.environ[name] for name in _NEEDED if name in os.environ}


def end(process: subprocess.Popen[bytes]) -> None:
    """Close the child's pipe, wait, kill what is left of its process group."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the child's whole process group at once, even one that is stopped."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_with_parent() -> None:
    """Called by a child, first of all: from now on it is told to end, and soon made to, when its parent is gone."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS - 1)
    os._exit(1)
