"""The parent of one model's workers: owns the listening socket for good and applies what it is asked to over a socket.

A process of the standard library alone, in a session of its own: `python -I -m asgard.serving.parent MODEL_DIR`.
Requests and answers on `control.sock` are JSON lines: {"command": "apply", "desired": ..., "environment": ...,
"timeout_seconds": ...}, {"command": "status"} or {"command": "stop"}; answered by {"accepted": true}, any number of
{"log": ...}, and {"done": ...} or {"failed": {"reason", "message", "log_tail"}}. A client that goes away, or closes its
writing end, while it applies takes its request back.
"""

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any

from . import desired as files
from . import options
from .desired import ApplyFailed, Desired
from .replicas import ReplicaSet
from .server_log import open_log

MESSAGE_LIMIT = 16 * 1024**2
"""Bytes of a request; environment variables are in it."""

LOCK_SECONDS = 30.0
"""How long to wait for a former parent of the same model that is ending."""

PORT_SECONDS = 8.0
"""How long to wait for the port where this model served before: workers of a killed parent let go of it in 3 s."""

IDLE_SECONDS = 15.0
"""When a parent that was asked for nothing ends."""

WATCH_SECONDS = 5.0
"""How often a parent looks whether its folder is still there."""

BACKLOG = 2048

_Address = tuple[str, int]
"""Host and port."""


class Parent:
    """`run` returns when all has ended. `model_dir` must be the current directory: a socket's path is short."""

    def __init__(self, model_dir: Path, lock: int) -> None:
        self._model_dir = model_dir
        self._lock = lock
        self._write = open_log(model_dir / files.LOG)
        self._replicas: ReplicaSet | None = None
        self._listeners: dict[_Address, socket.socket] = {}
        self._retired: dict[asyncio.Task[None], ReplicaSet] = {}
        self._applying = asyncio.Lock()
        self._end = asyncio.Event()
        self._apply_task: asyncio.Task[None] | None = None
        self._applies = 0
        self._stopped = False
        self._started = time.monotonic()

    async def run(self) -> None:
        """Serve the control socket until stopped, told to end, or the model's folder is gone."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end.set)
        path = Path(files.SOCKET)
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        server = await asyncio.start_unix_server(self._client, files.SOCKET, limit=MESSAGE_LIMIT)
        os.umask(mask)
        self._log(f"parent of {self._model_dir.name} started")
        watching = asyncio.ensure_future(self._watch())
        await self._end.wait()
        server.close()
        watching.cancel()
        self._take_back()
        async with self._applying:
            await self._close()
        if self._same_folder():
            path.unlink(missing_ok=True)
        self._log("parent ended")

    async def _close(self) -> None:
        for listener in self._listeners.values():
            listener.close()
        self._listeners = {}
        if self._replicas is not None:
            await self._replicas.close(at_once=True)
            self._replicas = None
        await asyncio.gather(*(replicas.close(at_once=True) for replicas in self._retired.values()))

    async def _watch(self) -> None:
        """End where there is nothing to do: the folder or the socket is gone, or nobody ever asked for anything."""
        while self._same_folder() and Path(files.SOCKET).exists():
            waiting = self._replicas is None and not self._applies
            if waiting and time.monotonic() - self._started > IDLE_SECONDS:
                break
            await asyncio.sleep(WATCH_SECONDS)
        self._end.set()

    def _same_folder(self) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(self._model_dir.stat(), os.fstat(self._lock))
        return False

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            _send(writer, accepted=True)
            if request["command"] == "apply":
                self._applies += 1
                try:
                    await self._answer_apply(request, reader, writer)
                finally:
                    self._applies -= 1
                    if self._replicas is None and not self._applies:
                        self._end.set()
            elif request["command"] == "status":
                _send(writer, done=self._status())
            elif request["command"] == "stop":
                await self._stop()
                _send(writer, done=None)
                self._end.set()
            await writer.drain()
        except (OSError, ValueError, KeyError):
            pass  # a client that went away or does not speak this protocol
        finally:
            writer.close()

    async def _answer_apply(
        self, request: Mapping[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        work = asyncio.ensure_future(
            self._apply(
                files.from_json(request["desired"]),
                request["environment"],
                request["timeout_seconds"],
                lambda line: _send(writer, log=line),
            )
        )
        self._apply_task = work
        gone = asyncio.ensure_future(reader.read(1))
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not work.done():
            self._take_back()
        try:
            await work
            _send(writer, done=None)
        except ApplyFailed as error:
            self._log(f"apply failed: {error.reason}: {error.message}")
            _send(writer, failed={"reason": error.reason, "message": error.message, "log_tail": error.log_tail})
        except asyncio.CancelledError:
            message = "The apply was taken back; what ran before runs on."
            _send(writer, failed={"reason": "Cancelled", "message": message, "log_tail": []})
        except Exception as error:
            self._log(traceback.format_exc())
            message = f"The model's parent failed: {error!r}"
            _send(writer, failed={"reason": "Crashed", "message": message, "log_tail": []})

    def _take_back(self) -> None:
        if self._apply_task is not None and not self._apply_task.done():
            self._log("the apply was taken back")
            self._apply_task.cancel()

    async def _apply(
        self, desired: Desired, environment: Mapping[str, str], timeout_seconds: float, on_log: Callable[[str], None]
    ) -> None:
        async with self._applying:
            if self._stopped:
                raise ApplyFailed("Crashed", "The model is being stopped.")
            former = self._replicas
            if (
                former is not None
                and former.environment == dict(environment)
                and former.desired.differs_in_replicas_only(desired)
            ):
                await self._scale(former, desired, timeout_seconds)
            else:
                await self._switch(former, desired, environment, timeout_seconds, on_log)

    async def _scale(self, replicas: ReplicaSet, desired: Desired, timeout_seconds: float) -> None:
        more = desired.replicas - replicas.desired.replicas
        if more > 0:
            await _in_time(replicas, replicas.grow(more), timeout_seconds)
        try:
            files.write(self._model_dir, desired)
        except OSError as error:
            await replicas.shrink(more)
            raise _cannot_record(error) from error
        replicas.with_replicas(desired.replicas)
        if more < 0:
            await replicas.shrink(-more)
        await _in_time(replicas, replicas.wait_ready(), timeout_seconds)

    async def _switch(
        self,
        former: ReplicaSet | None,
        desired: Desired,
        environment: Mapping[str, str],
        timeout_seconds: float,
        on_log: Callable[[str], None],
    ) -> None:
        """New workers beside the former ones; only when all of them serve do the former ones go."""
        listeners = await self._listen(_addresses(desired, environment))

        def write(pid: int, line: str) -> None:
            self._write(pid, line)
            if self._replicas is not replicas:  # afterwards the apply has been answered
                on_log(line)

        replicas = ReplicaSet(desired, environment, list(listeners.values()), write)
        try:
            await _in_time(replicas, replicas.grow(desired.replicas), timeout_seconds)
            try:
                files.write(self._model_dir, desired)
            except OSError as error:
                raise _cannot_record(error) from error
        except BaseException:
            _close_others(listeners, self._listeners)
            self._retire(replicas)
            raise
        self._replicas = replicas
        _close_others(self._listeners, listeners)
        self._listeners = listeners
        self._log(f"version {desired.release.get('version')} serves with {desired.replicas} workers")
        if former is not None:
            await former.retire()
            self._retire(former)

    async def _listen(self, addresses: Iterable[_Address]) -> dict[_Address, socket.socket]:
        """Those there are, and new ones. Raises ApplyFailed."""
        found: dict[_Address, socket.socket] = {}
        try:
            for address in addresses:
                found[address] = self._listeners.get(address) or await self._listen_anew(*address)
        except BaseException:
            _close_others(found, self._listeners)
            raise
        return found

    async def _listen_anew(self, host: str, port: int) -> socket.socket:
        mine = self._replicas is None and (self._model_dir / files.FILE).exists()
        deadline = time.monotonic() + (PORT_SECONDS if mine else 0)
        while True:
            try:
                return _bound(host, port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise ApplyFailed(
                        "PortTaken", f"Port {port} of {host} cannot be used: {error.strerror}."
                    ) from error
                if time.monotonic() > deadline:
                    raise ApplyFailed(
                        "PortTaken",
                        f"Port {port} of {host} is taken by another process. End it, "
                        "or give the model another port in its stack file.",
                    ) from error
            await asyncio.sleep(0.1)

    async def _stop(self) -> None:
        self._stopped = True
        self._take_back()
        async with self._applying:
            (self._model_dir / files.FILE).unlink(missing_ok=True)
            await self._close()

    def _status(self) -> dict[str, Any]:
        replicas = self._replicas
        return {
            "desired": None if replicas is None else files.to_json(replicas.desired),
            "worker_pids": [] if replicas is None else [w.pid for w in replicas.workers if not w.ended.done()],
            "parent_pid": os.getpid(),
            "ready": replicas is not None and replicas.ready,
        }

    def _retire(self, replicas: ReplicaSet) -> None:
        task = asyncio.ensure_future(replicas.close())
        self._retired[task] = replicas
        task.add_done_callback(self._retired.pop)

    def _log(self, line: str) -> None:
        self._write(os.getpid(), line)


def _addresses(desired: Desired, environment: Mapping[str, str]) -> list[_Address]:
    """Where the model is served, and its metrics where they have a port of their own. Raises ApplyFailed."""
    try:
        port = options.read(environment).metrics_port
    except ValueError as error:
        raise ApplyFailed("Crashed", f"{error}.") from error
    if port == desired.port:
        raise ApplyFailed("PortTaken", f"{options.METRICS_PORT} is {port}, on which the model itself is served.")
    return [(desired.host, wanted) for wanted in (desired.port, port) if wanted is not None]


def _close_others(listeners: Mapping[_Address, socket.socket], kept: Mapping[_Address, socket.socket]) -> None:
    for address, listener in listeners.items():
        if address not in kept:
            listener.close()


async def _in_time(replicas: ReplicaSet, work: Coroutine[None, None, None], timeout_seconds: float) -> None:
    try:
        await asyncio.wait_for(work, timeout_seconds)
    except TimeoutError as error:
        if replicas.last_failure is not None:
            raise replicas.last_failure from error
        message = f"The model was not healthy within {timeout_seconds:g} seconds."
        raise ApplyFailed("Timeout", message, replicas.tail) from error


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Connections of former workers may still be closing here. Where another process listens, bind fails anyway.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _cannot_record(error: OSError) -> ApplyFailed:
    return ApplyFailed("Crashed", f"{files.FILE} cannot be written: {error.strerror}.")


def _send(writer: asyncio.StreamWriter, **message: object) -> None:
    if not writer.is_closing():
        writer.write(json.dumps(message).encode() + b"\n")


def _locked(model_dir: Path) -> int | None:
    """The folder's descriptor, locked against a second parent; None where another one has it and is not ending."""
    descriptor = os.open(model_dir, os.O_RDONLY)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if _answers(files.SOCKET) or time.monotonic() > deadline:
                return None
            time.sleep(0.05)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, contextlib.suppress(OSError):
        connection.connect(path)
        return True
    return False


def main() -> int:
    """The exit code."""
    model_dir = Path(sys.argv[1]).absolute()
    os.chdir(model_dir)
    lock = _locked(model_dir)
    if lock is None:
        return 0  # there is a parent

    async def run() -> None:
        await Parent(model_dir, lock).run()

    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
