"""`serve`: the API in this process, until it is told to end."""

import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from . import help_text
from .failures import INTERRUPTED, USAGE, CommandFailed

if TYPE_CHECKING:
    from ..settings import Settings

_VARIABLES = (
    "ASGARD_DATA_DIR", "ASGARD_API_TOKEN", "MLFLOW_TRACKING_URI", "ASGARD_STACKS_DIR", "ASGARD_BACKEND_URL",
    "ASGARD_FEAST_REPO_PATH", "ASGARD_SHUTDOWN_TIMEOUT_SECONDS",
)  # fmt: skip

_BACKLOG: Final = 2048
"""Connections that may wait to be accepted; uvicorn's own default."""


def add_commands(app: typer.Typer) -> None:
    app.command(epilog=help_text.epilog(0, 1, 2, INTERRUPTED, variables=_VARIABLES))(serve)


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine only with a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: a free one.", min=0, max=65535)] = 8000,
    log_format: Annotated[
        Literal["console", "json"], typer.Option(help="Of the log, on the standard error.")
    ] = "console",
) -> None:
    """Run the API until Ctrl-C or SIGTERM; print its URL when it answers.

    It runs the embedded MLflow, and starts deployed models that do not run.
    Told to end, it takes no more requests and waits for running deploys; a
    second Ctrl-C ends it at once, and what was under way is put right at the
    next start. Models keep serving without it. A data folder has one API.

    Try:
      asgard serve --port 8080
    """
    from .. import logs
    from .configuration import load

    logs.configure("info", log_format)
    settings = load()
    with _only_one(settings):
        from ..api.auth import ListenRefused, check_listen

        try:
            check_listen(host, settings)
        except ListenRefused as error:
            raise CommandFailed("The API was not started", error.message, USAGE) from None
        _run(settings, _listen(host, port))


def _run(settings: "Settings", sockets: list[socket.socket]) -> None:
    import structlog
    import uvicorn

    from ..api.app import create_server

    log = structlog.get_logger("asgard.serve")
    host, port = sockets[0].getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            log.info("the API answers", url=url, docs=f"{url}/docs", data_dir=str(settings.data_dir))
            typer.echo(url)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            log.info(
                "ending: what runs is finished first, Ctrl-C again ends it", seconds=settings.shutdown_timeout_seconds
            )
            await super().shutdown(sockets)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
            # uvicorn's own would send the signal again after a shutdown in good order.
            if self.should_exit and sig == signal.SIGINT:
                os._exit(INTERRUPTED)
            self.should_exit = True

    try:
        Server(create_server(settings, host, port).config).run(sockets)
    except SystemExit:
        raise CommandFailed("The API did not start", "The log above says why.") from None
    log.info("the API has ended")
    sys.stdout.flush()
    # Else threads of a deploy that was not waited for any longer would keep the process.
    os._exit(0)


@contextmanager
def _only_one(settings: "Settings") -> Iterator[None]:
    """Be the data folder's one API. Raises CommandFailed."""
    from filelock import FileLock, Timeout

    lock = FileLock(settings.data_dir / "serve.lock")
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise CommandFailed(
            "The API was not started",
            f"Another `asgard serve` runs on the data folder {settings.data_dir}. Use that one, stop it, or set "
            "ASGARD_DATA_DIR to another folder.",
        ) from None
    except OSError as error:
        raise CommandFailed(
            "The API was not started",
            f"The data folder {settings.data_dir} cannot be written: {error.strerror}. Make it writable, or set "
            "ASGARD_DATA_DIR to another folder.",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets at every address of the host, all at one port. Raises CommandFailed."""
    try:
        found = dict.fromkeys(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))
    except OSError as error:
        raise CommandFailed("The API was not started", f"--host {host}: {error.strerror}.", USAGE) from None
    sockets: list[socket.socket] = []
    for family, _, _, _, address in found:
        chosen = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(socket.create_server((str(address[0]), chosen), family=family, backlog=_BACKLOG))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL and len(found) > 1:
                continue  # as ::1 is where there is no IPv6
            raise _cannot_listen(host, chosen, error) from None
    if not sockets:
        raise CommandFailed("The API was not started", f"{host} is no address of this machine.", USAGE)
    return sockets


def _cannot_listen(host: str, port: int, error: OSError) -> CommandFailed:
    match error.errno:
        case errno.EADDRINUSE:
            why = f"Port {port} of {host} is taken by another program. End that program, or choose another with --port."
        case errno.EACCES:
            why = f"Port {port} is for the superuser only. Choose one above 1023 with --port."
        case errno.EADDRNOTAVAIL:
            why = f"{host} is no address of this machine. Choose another with --host."
        case _:
            why = f"Cannot listen at port {port} of {host}: {error.strerror}."
    return CommandFailed("The API was not started", why)
