"""Commands as processes of their own, and servers that are not Asgard."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..api.fake_platform import DEADLINE_SECONDS
from ..waiting import until


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """An environment with a data folder in `folder` and no other setting of Asgard."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ASGARD_", "MLFLOW_", "PULUMI_"))}
    return {
        **kept,
        "ASGARD_DATA_DIR": str(folder / "data"),
        "ASGARD_CACHE_DIR": str(folder / "cache"),
        "PYTHONUNBUFFERED": "1",
        **variables,
    }


@contextmanager
def started(arguments: list[str], folder: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """`python ARGUMENTS`, killed at the end if it still runs. `errors` reads what it wrote to the standard error."""
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(folder, **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE_SECONDS)


def errors(folder: Path) -> str:
    return (folder / "stderr").read_text()


def first_line(process: subprocess.Popen[str], folder: Path) -> str:
    """The first line of its standard output; fails when it ends without one."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line, errors(folder)
    return line


def ended(process: subprocess.Popen[str]) -> int:
    """Its exit code, once it has ended by itself."""
    until(lambda: process.poll() is not None)
    return int(process.returncode)


@contextmanager
def answering(head: bytes, heard: Callable[[bytes], object] = len) -> Iterator[str]:
    """A server that answers one request with `head` and ends the connection. `heard` is called with the request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                heard(connection.recv(65536))
                connection.sendall(head)
                connection.shutdown(socket.SHUT_WR)
                while rest := connection.recv(65536):
                    heard(rest)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()
