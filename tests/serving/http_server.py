"""Servers of a model on a port: this one in this process, without a parent, and MLflow's own."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx

from asgard.serving.application import Application, of_model
from asgard.serving.http_server import Server
from asgard.serving.loading import load

from ..api.fake_platform import DEADLINE_SECONDS
from ..ports import free_port
from ..waiting import until


@contextmanager
def serving(bundle: Path) -> Iterator[str]:
    """The inference URL of the bundle's model."""
    with listening(of_model(load(bundle))) as (port,):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def listening(applications: Sequence[Application]) -> Iterator[list[int]]:
    """The ports on which they are served, from a thread of this process."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in applications]
    loop = asyncio.new_event_loop()
    server = Server(applications, lambda _: None)
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(listeners),))
    thread.start()
    try:
        yield [listener.getsockname()[1] for listener in listeners]
    finally:
        loop.call_soon_threadsafe(server.end)
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()
        loop.close()


@asynccontextmanager
async def client_of(application: Application) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, served in the same event loop."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server([application], lambda _: None)
        serving = asyncio.ensure_future(server.serve([listener]))
        limits = httpx.Limits(max_connections=None)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_SECONDS, limits=limits) as client:
                yield client
        finally:
            server.end()
            await serving


@contextmanager
def mlflow_serves(python: Path, model: Path) -> Iterator[str]:
    """The URL of `mlflow models serve` for a saved model, by the MLflow of an interpreter."""
    port = free_port()
    server = subprocess.Popen(
        [python, "-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local", "--port", str(port)],
        env={**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"},
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert server.poll() is None, "MLflow's server has ended"
        try:
            return httpx.get(f"{url}/ping").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(answers, seconds=2 * DEADLINE_SECONDS)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(DEADLINE_SECONDS)
