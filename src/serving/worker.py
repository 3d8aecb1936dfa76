"""One worker: loads the model, checks it, serves it on a socket that it was given, drains when told to end."""

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import large_bodies, options, processes
from .application import Application, of_model
from .http_server import END_SECONDS, Server
from .large_bodies import LargeBodies
from .loaded import LoadedModel
from .loading import load, reason
from .metrics import SharedNumbers
from .problems import HealthCheckFailed
from .tracing import Traces

log = logging.getLogger(__name__)

ORPHAN_SECONDS = 3.0
"""How long a worker whose parent is gone finishes what it has begun; then the port must be free for the next parent."""

LOADED_PART = 2 / 3
"""Of the memory limit, that a worker and its process for large bodies may take when both have loaded the model."""


def fork_second(bundle: Path, numbers: SharedNumbers, row: int, sockets: Iterable[socket.socket]) -> LargeBodies | None:
    """The process for large bodies, before any thread runs. `row`: where it counts; `sockets`: not to be kept open."""

    def application() -> Application:
        return _applications(load(bundle), numbers, row)[0]

    return large_bodies.fork(application, sockets)


def run(
    listeners: Sequence[socket.socket],
    status: socket.socket,
    bundle: Path,
    numbers: SharedNumbers | None = None,
    row: int = 0,
    second: LargeBodies | None = None,
) -> int:
    """Serve until told to end; the exit code.

    Over `status` go JSON lines: {"event": "healthy", "health_check": ...}, {"event": "failed", "stage": "load" or
    "health", "error": ...}, {"event": "serving"}, {"event": "draining"}. Serving begins with the first byte received
    from there; the end of that stream means that the parent is gone. `listeners`: the model's, and that of its metrics
    where they have a port of their own. `numbers`, `row`: where it counts, with others. `second`: who takes large
    bodies.
    """
    for inherited in (*listeners, status):
        inherited.set_inheritable(False)
    go, server = threading.Event(), _Holder()
    threading.Thread(target=_watch_parent, args=(status, go, server), daemon=True, name="parent").start()
    try:
        before = processes.usage(os.getpid())
        model = load(bundle)
        second = _kept(second, model, before)
        applications = _applications(model, numbers, row)
    except HealthCheckFailed as error:
        log.error("%s", error, exc_info=error.__cause__)
        return _failed(status, "health", str(error))
    except BaseException as error:
        log.exception("the model cannot be loaded")
        return _failed(status, "load", reason(error))
    _tell(status, event="healthy", health_check=model.info["health_check"])
    go.wait()

    def tell(event: str) -> None:
        if second is not None and event == "draining":
            second.drain()
        _tell(status, event=event)

    server.value = Server(applications, tell, None if second is None else second.take)
    server.value.run(listeners)
    if second is not None:
        second.end(END_SECONDS)
    for application in applications:
        application.close()
    return 0


def _kept(second: LargeBodies | None, model: LoadedModel, before: processes.Usage | None) -> LargeBodies | None:
    """The second process, which is ended where the model took much memory to load since `before`."""
    after = processes.usage(os.getpid())
    if second is None or before is None or after is None:
        return None
    both = after.resident + (after.resident - before.resident)
    limit = int(os.environ.get(processes.MEMORY_LIMIT, 0))
    if both > limit * LOADED_PART:
        second.end(END_SECONDS)
        return None
    second.ready = model.quick is not None  # so its library is a known one
    return second


def _applications(model: LoadedModel, numbers: SharedNumbers | None, row: int) -> list[Application]:
    asked = options.read(os.environ)
    return of_model(model, asked, numbers, row, Traces(model.info) if asked.opentelemetry else None)


class _Holder:
    """The server, once there is one: the thread that watches the parent starts before it."""

    value: Server | None = None


def _watch_parent(status: socket.socket, go: threading.Event, server: _Holder) -> None:
    """In a thread of its own, so that a parent's end is noticed while the model loads or predicts."""
    try:
        while status.recv(1):
            go.set()
    except OSError:
        pass
    log.warning("the parent is gone; ending")
    if server.value is not None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(ORPHAN_SECONDS)
    end_group()


def end_group() -> None:
    """End this process and those it started, at once."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _failed(status: socket.socket, stage: str, error: str) -> int:
    _tell(status, event="failed", stage=stage, error=error)
    return 1


def _tell(status: socket.socket, **fields: object) -> None:
    try:
        status.sendall(json.dumps(fields).encode() + b"\n")
    except OSError:
        log.warning("the parent is gone")
