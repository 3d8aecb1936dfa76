"""The client's side of a model's parent: apply, ask, stop. Any process of the same user may call it."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from . import desired as files
from .desired import ApplyFailed, Desired, Status
from .processes import alive, clean_environment, tree

START_SECONDS = 40.0
"""How long to wait for a parent that was just started, also where a former one is ending."""

ANSWER_SECONDS = 10.0
"""How long a parent may take to say what it runs."""

GRACE_SECONDS = 40.0
"""Beyond the time an apply was given: for a parent that undoes what has failed."""

STOP_SECONDS = 90.0

KILL_SECONDS = 10.0

_CREDENTIALS = struct.calcsize("3i")
"""Bytes of Linux's `struct ucred`: process, user and group, of whoever called `listen` on the other end."""

_SOCKET_PATH_MAX = 100
"""Bytes; the limit is 108 on Linux and 104 on macOS."""


_applying: set[socket.socket] = set()
"""Connections over which this process waits for an apply."""


class _NoAnswer(Exception):
    """There is no parent, or it ended before it took the request."""


def apply(
    model_dir: Path,
    desired: Desired,
    environment: Mapping[str, str],
    *,
    timeout_seconds: float,
    on_log: Callable[[str], None],
) -> None:
    """Have the model's parent, started where there is none, run what is desired; returns when all of it serves.

    `environment`: the user's variables; they go to the workers over a socket and are kept in memory alone.
    `timeout_seconds`: for new workers to become healthy. `on_log`: gets what they print meanwhile. Raises ApplyFailed;
    then what ran before runs on, unless its parent hung: then it was ended first.
    """
    if status(model_dir) is None:
        _end_hanging(model_dir)
    request = {
        "command": "apply",
        "desired": files.to_json(desired),
        "environment": dict(environment),
        "timeout_seconds": timeout_seconds,
    }
    deadline = time.monotonic() + START_SECONDS
    model_dir.mkdir(parents=True, exist_ok=True)
    started: subprocess.Popen[bytes] | None = None
    while True:
        try:
            return _apply(model_dir, request, timeout_seconds + GRACE_SECONDS, on_log)
        except _NoAnswer:
            if time.monotonic() > deadline:
                message = f"The parent of {desired.name} does not start; {model_dir / files.LOG} may tell why."
                raise ApplyFailed("Crashed", message) from None
        if started is None or started.poll() is not None:
            started = _start_parent(model_dir)
        time.sleep(0.03)


def applying() -> bool:
    """Whether this process waits for an apply."""
    return bool(_applying)


def cancel() -> None:
    """Take back what this process has asked to apply: each such call ends with ApplyFailed, reason `Cancelled`."""
    for connection in tuple(_applying):
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)


def status(model_dir: Path) -> Status | None:
    """What the model's parent runs; None where no parent answers."""
    try:
        with _request(model_dir, {"command": "status"}, ANSWER_SECONDS) as answers:
            for answer in answers:
                if "done" in answer:
                    found = answer["done"]
                    wanted = found["desired"]
                    return Status(
                        desired=None if wanted is None else files.from_json(wanted),
                        worker_pids=tuple(found["worker_pids"]),
                        parent_pid=found["parent_pid"],
                        ready=found["ready"],
                    )
    except (_NoAnswer, OSError):
        pass
    return None


def stop(model_dir: Path) -> None:
    """End the model's workers, after what they are answering, and its parent, and remove desired.json.

    Returns when the processes are gone and the port refuses connections. A parent that does not answer is killed, with
    all below it. Tolerant of nothing being there. Raises TimeoutError.
    """
    wanted = None
    with contextlib.suppress(ValueError):
        wanted = files.read(model_dir)
    running = status(model_dir)
    (model_dir / files.FILE).unlink(missing_ok=True)
    if running is not None:
        deadline = time.monotonic() + STOP_SECONDS
        with contextlib.suppress(_NoAnswer, OSError), _request(model_dir, {"command": "stop"}, STOP_SECONDS) as answers:
            for _ in answers:
                pass
        pids = (running.parent_pid, *running.worker_pids)
        if _wait(lambda: not any(alive(pid) for pid in pids), deadline):
            return
    if not _end_hanging(model_dir) and running is not None:
        raise TimeoutError(f"Processes of the model in {model_dir} have not ended: {[p for p in pids if alive(p)]}")
    # Workers whose parent was killed end by themselves; what else listens on the port is not ours.
    if wanted is not None:
        _wait(lambda: not _accepts(wanted.host, wanted.port), time.monotonic() + 6)


def hangs(model_dir: Path) -> bool:
    """Whether there is a parent, for a caller that got no answer from it."""
    return _listening_pid(model_dir) is not None


def _end_hanging(model_dir: Path) -> bool:
    """Kill a parent that does not answer, and all below it; False: there is none."""
    parent = _listening_pid(model_dir)
    if parent is None:
        return False
    pids = list(tree(parent))
    for pid in (parent, *pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if not _wait(lambda: not any(alive(pid) for pid in pids), time.monotonic() + KILL_SECONDS):
        raise TimeoutError(f"Processes of the model in {model_dir} were killed and are there: {pids}")
    return True


def _listening_pid(model_dir: Path) -> int | None:
    """Who listens on the model's control socket, as the kernel knows it; None: nobody."""
    if sys.platform != "linux":
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        try:
            with _short(model_dir / files.SOCKET) as path:
                connection.connect(path)
        except OSError:
            return None
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS))
    return int(pid)


def _apply(model_dir: Path, request: Mapping[str, Any], timeout_seconds: float, on_log: Callable[[str], None]) -> None:
    accepted = False
    try:
        with _request(model_dir, request, timeout_seconds) as answers:
            for answer in answers:
                accepted = True
                if "log" in answer:
                    on_log(answer["log"])
                elif "failed" in answer:
                    raise ApplyFailed(**answer["failed"])
                elif "done" in answer:
                    return
    except TimeoutError as error:
        raise ApplyFailed("Timeout", "The model's parent does not answer.") from error
    except OSError as error:
        if not accepted:
            raise _NoAnswer from error
    if not accepted:
        raise _NoAnswer
    raise ApplyFailed("Crashed", "The model's parent ended while it applied.")


@contextlib.contextmanager
def _request(model_dir: Path, request: Mapping[str, Any], timeout_seconds: float) -> Iterator[Iterator[dict[str, Any]]]:
    """Send one request; the answers as they come. Raises _NoAnswer where nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        try:
            with _short(model_dir / files.SOCKET) as path:
                connection.connect(path)
            connection.sendall(json.dumps(request).encode() + b"\n")
        except (FileNotFoundError, ConnectionError) as error:
            raise _NoAnswer from error
        try:
            if request["command"] == "apply":
                _applying.add(connection)
            with connection.makefile("rb") as lines:
                yield _answers(lines)
        finally:
            _applying.discard(connection)


def _answers(lines: IO[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        yield json.loads(line)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A path to the same socket that fits into a socket address."""
    if len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
        yield str(path)
        return
    short = None if len(os.fsencode(tempfile.gettempdir())) < _SOCKET_PATH_MAX // 2 else "/tmp"  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="asgard-", dir=short) as folder:
        link = Path(folder) / "m"
        link.symlink_to(path.parent.absolute(), target_is_directory=True)
        yield str(link / path.name)


def _start_parent(model_dir: Path) -> subprocess.Popen[bytes]:
    log = model_dir / files.LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", f"{__package__}.parent", str(model_dir.absolute())],
            env=clean_environment(os.environ),
            cwd=model_dir,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
    # It outlives most of its callers; for one that outlives it, no zombie must remain.
    threading.Thread(target=process.wait, daemon=True).start()
    return process


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _wait(condition: Callable[[], bool], deadline: float) -> bool:
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
