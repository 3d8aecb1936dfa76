"""A real registry (Debian's docker-registry, the distribution project's) on the loopback."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import bcrypt
import httpx

from .model import HarnessError

_START_SECONDS: Final = 60


def command(folder: Path, port: int, users: Mapping[str, str] | None = None) -> list[str]:
    """The command that serves `folder`, which keeps what is pushed, at `127.0.0.1:port`; deletion is allowed.

    `users`: passwords by name, asked for by Basic authentication; None: everyone may do all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if users is not None:
        passwords = folder / "htpasswd"
        lines = [f"{name}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}" for name, word in users.items()]
        passwords.write_text("\n".join(lines))
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(passwords)}}
    (folder / "config.json").write_text(json.dumps(config))
    return ["docker-registry", "serve", str(folder / "config.json")]


@contextmanager
def running(folder: Path, port: int, users: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yields `127.0.0.1:PORT` of a registry that ends with the block; started again there, it has what it had."""
    log = folder / "registry.log"
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command(folder, port, users), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise HarnessError("The registry does not start.", log.read_text(errors="replace").splitlines()[-10:])
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/v2/", trust_env=False).status_code in (200, 401)
    except httpx.TransportError:
        return False
