"""A model's parent and the server in its bundle may be of different versions of Asgard, and understand each other."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path

import httpx
import pytest

from . import first_template
from .parents import Parents


@pytest.fixture(scope="module")
def template(model_python: Path, compiled: Callable[..., Path]) -> Iterator[socket.socket]:
    """What the parent of a running template holds."""
    bundle = compiled("specification")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [model_python, "-m", "asgard_server", "--template-fd", str(theirs.fileno()), bundle],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(bundle / "server")},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        assert line(ours) == {"event": "imported"}
        yield ours
        process.kill()
        process.wait()


@pytest.mark.parametrize("order", [*permutations(("status", "output", "listener"))])
def test_a_parent_may_send_what_a_worker_needs_in_any_order(template: socket.socket, order: tuple[str, ...]) -> None:
    with ExitStack() as opened:
        ours, theirs = map(opened.enter_context, socket.socketpair())
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        _printed, output = (
            opened.enter_context(os.fdopen(end, mode)) for end, mode in zip(os.pipe(), "rw", strict=True)
        )
        sent = {"status": theirs.fileno(), "output": output.fileno(), "listener": listener.fileno()}
        socket.send_fds(template, [b"f"], [sent[name] for name in order])
        assert line(template)["event"] == "forked"
        theirs.close()
        assert line(ours)["event"] == "healthy"
        ours.send(b"\n")
        assert line(ours) == {"event": "serving"}
        assert httpx.get(f"http://127.0.0.1:{listener.getsockname()[1]}/health").status_code == 200
    assert line(template)["event"] == "exited"


def test_the_server_of_the_first_version_serves_under_the_parent_of_this_one(
    parents: Parents, bundle: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "first"
    shutil.copytree(bundle("specification"), folder, ignore=shutil.ignore_patterns("asgard_server"))
    server = folder / "server" / "asgard_server"
    server.mkdir(parents=True)
    shutil.copy(first_template.__file__, server / "__main__.py")
    model = parents.model()
    model.apply(bundle=str(folder), replicas=2)
    assert httpx.get(f"{model.url}/health").text == "first"
    assert len(model.status().worker_pids) == 2
    model.apply("specification")
    assert model.predict(1, 2, 3, 4, 5).status_code == 200


def line(connection: socket.socket) -> dict[str, object]:
    """The next line of JSON, read byte by byte so that none is kept from the next reader."""
    connection.settimeout(60)
    found = b""
    while not found.endswith(b"\n"):
        found += connection.recv(1)
    content: dict[str, object] = json.loads(found)
    return content
