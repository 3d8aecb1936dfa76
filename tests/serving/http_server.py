"""Servers of a model on a port: this one in this process, without a parent, and MLflow's own."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn

from asgard.serving.asgi import of_model
from asgard.serving.loading import load

from ..api.fake_platform import DEADLINE_SECONDS
from ..waiting import until
from .parents import free_port


@contextmanager
def serving(bundle: Path) -> Iterator[str]:
    """The inference URL of the bundle's model."""
    application = of_model(load(bundle))
    server = uvicorn.Server(
        uvicorn.Config(application, port=0, http="httptools", ws="none", lifespan="off", log_config=None)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


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
