"""One worker: loads the model, checks it, serves it on a socket that it was given, drains when told to end."""

import asyncio
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from . import options
from .asgi import Application, of_model
from .loading import load
from .metrics import SharedNumbers
from .problems import HealthCheckFailed

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
"""How long a worker that is being replaced goes on answering on connections that were open."""

ORPHAN_SECONDS = 3.0
"""How long a worker whose parent is gone finishes what it has begun; then the port must be free for the next parent."""

KEEP_ALIVE_SECONDS = 75
"""Idle time after which a connection is closed; longer than what clients and proxies usually keep one for."""


def run(
    listener: socket.socket,
    status: socket.socket,
    bundle: Path,
    numbers: SharedNumbers | None = None,
    row: int = 0,
) -> int:
    """Serve until told to end; the exit code.

    Over `status` go JSON lines: {"event": "healthy", "health_check": ...}, {"event": "failed", "stage": "load" or
    "health", "error": ...}, {"event": "serving"}, {"event": "draining"}. Serving begins with the first byte received
    from there; the end of that stream means that the parent is gone. `numbers`, `row`: where it counts, with others.
    """
    for inherited in (listener, status):
        inherited.set_inheritable(False)
    go, server = threading.Event(), _Holder()
    threading.Thread(target=_watch_parent, args=(status, go, server), daemon=True, name="parent").start()
    try:
        model = load(bundle)
    except HealthCheckFailed as error:
        log.error("%s", error, exc_info=error.__cause__)
        return _failed(status, "health", str(error))
    except BaseException as error:
        log.exception("the model cannot be loaded")
        return _failed(status, "load", f"The model cannot be loaded: {type(error).__name__}: {error}")
    _tell(status, event="healthy", health_check=model.info["health_check"])
    go.wait()
    application = of_model(model, options.read(os.environ), numbers, row)
    server.value = DrainingServer(application, lambda event: _tell(status, event=event))
    server.value.run(sockets=[listener])
    return 0


class _Holder:
    """The server, once there is one: the thread that watches the parent starts before it."""

    value: "DrainingServer | None" = None


class DrainingServer(uvicorn.Server):
    """SIGTERM: accept no more, answer what comes on open connections, close them, end. SIGINT: end after what runs.

    Closing the accept and then waiting is what makes a hand-over lose no request: others accept on the same socket.
    """

    def __init__(self, application: Application, tell: Callable[[str], None]) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http="httptools",
                loop="uvloop",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=int(DRAIN_SECONDS),
            )
        )
        self._application = application
        self._tell = tell
        self._draining = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept, and say so."""
        await super().startup(sockets=sockets)
        self._loop = asyncio.get_running_loop()
        self._tell("serving")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Called by uvicorn for SIGINT and SIGTERM, in the main thread between any two instructions."""
        if sig == signal.SIGTERM and self.started:
            self._loop.call_soon_threadsafe(self.drain)
        else:
            self._application.closing = True
            self.should_exit = True

    def drain(self) -> None:
        """Begin to end; must run in the event loop."""
        if self._draining:
            return
        self._draining = self._application.closing = True
        for server in self.servers:
            server.close()
        self._tell("draining")
        self._drain_task = self._loop.create_task(self._end_when_empty())

    async def _end_when_empty(self) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        while self.server_state.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        self.should_exit = True


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
