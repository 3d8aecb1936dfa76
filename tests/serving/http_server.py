"""A model's server on a port, in this process: the application over the real server, without a parent."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from asgard.serving.asgi import Application
from asgard.serving.handlers import operations
from asgard.serving.loading import load

from ..api.fake_platform import DEADLINE_SECONDS, wait_until


@contextmanager
def serving(bundle: Path) -> Iterator[str]:
    """The inference URL of the bundle's model."""
    server = uvicorn.Server(
        uvicorn.Config(
            Application(operations(load(bundle))), port=0, http="httptools", ws="none", lifespan="off", log_config=None
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()
