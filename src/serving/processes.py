"""Processes as the operating system shows them. Without /proc, memory is not seen and counts as none."""

import contextlib
import os
import resource
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

_PASSED = {"PATH", "HOME", "LANG", "TMPDIR"}
_PROXY = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
_CERTIFICATES = {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

MOST_FILES = 65_536
"""That a server may have open: each client is one."""

MEMORY_LIMIT = "WORKER_MEMORY_LIMIT_BYTES"
"""The variable that tells a worker how much memory it may use."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a model's processes may inherit; above all none of the credentials of whoever deploys."""
    passed = _PASSED | _PROXY | {name.lower() for name in _PROXY} | _CERTIFICATES
    return {name: value for name, value in environment.items() if name in passed}


def worker_environment(
    clean: Mapping[str, str], user: Mapping[str, str], bundle: str, millicores: int
) -> dict[str, str]:
    """A worker's environment but for `MEMORY_LIMIT`. What the user set wins, except where the server is found."""
    threads = str(max(1, -(-millicores // 1000)))
    search = os.pathsep.join(filter(None, (str(Path(bundle, "server")), user.get("PYTHONPATH"))))
    return {
        **clean,
        **dict.fromkeys(_THREADS, threads),
        "PYTHONUNBUFFERED": "1",  # what a model prints is in the log at once
        "MLFLOW_DISABLE_TELEMETRY": "true",  # starts a thread, which does not survive the fork
        **user,
        "PYTHONPATH": search,
    }


def allow_files() -> None:
    """Let this process open `MOST_FILES`, or as many as the system lets it; shells begin with fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
        state = _stat(pid)[0]
    except ProcessLookupError:
        return False
    except OSError:
        return not Path("/proc/self/stat").exists()
    return state not in "ZX"


def tree(pid: int) -> Iterator[int]:
    """A process and its descendants; nothing of what is gone."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - a tenth of the time
            with contextlib.suppress(OSError):
                for child in _read(f"/proc/{pid}/task/{thread}/children").split():
                    yield from tree(int(child))
        yield pid


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants; what they share since a fork counts for each."""
    return sum(map(_resident, tree(pid)))


def taken_bytes(pid: int) -> int:
    """The same where what descendants share with others is not counted again; a hundred times as slow."""
    return sum(_resident(one) if one == pid else _private(one) for one in tree(pid))


class Usage(NamedTuple):
    """CPU in seconds, resident memory in bytes, open files, its begin in seconds since 1970."""

    cpu: float
    resident: int
    files: int
    began: float


def usage(pid: int) -> Usage | None:
    """What a process has taken. None where /proc does not tell."""
    with contextlib.suppress(OSError):
        fields, ticks = _stat(pid), os.sysconf("SC_CLK_TCK")
        booted = time.time() - float(Path("/proc/uptime").read_text().split()[0])
        files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        cpu = (int(fields[11]) + int(fields[12])) / ticks
        return Usage(cpu, _resident(pid), files, booted + int(fields[19]) / ticks)
    return None


def kill_group(pid: int) -> None:
    """SIGKILL a group by its leader, also one whose leader has ended; tolerant of what is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat (proc(5)) from the third on, the state. Raises OSError."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].decode().split()


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(_read(f"/proc/{pid}/statm").split()[1]) * _PAGE
    return 0


def _private(pid: int) -> int:
    """By https://docs.kernel.org/filesystems/proc.html (smaps_rollup), which has lines like `Private_Dirty: 4 kB`."""
    with contextlib.suppress(OSError):
        lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(b"Private_"))
    return 0


def _read(path: str) -> bytes:
    """A file of /proc, all of it: the system gives a long one page by page."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - without what pathlib adds
        return file.read()
