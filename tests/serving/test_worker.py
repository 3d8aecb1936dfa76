"""One worker over HTTP, started as a process on a socket that the test holds."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import pytest
from uv import find_uv_bin

from asgard.serving.application import BODY_LIMIT


@dataclass
class Worker:
    process: subprocess.Popen[bytes]
    status: socket.socket
    events: IO[bytes]
    url: str
    port: int

    def event(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.events.readline())
        return found


def start(python: Path, bundle: Path) -> Worker:
    """A worker that was told to load the bundle; it serves only when it gets a byte on `status`."""
    ours, theirs = socket.socketpair()
    with theirs, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        inherited = (listener.fileno(), theirs.fileno())
        process = subprocess.Popen(
            [python, "-m", "asgard_server", "--fd", str(inherited[0]), "--status-fd", str(inherited[1]), bundle],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(bundle / "server")},
            pass_fds=inherited,
            start_new_session=True,
        )
    ours.settimeout(120)
    return Worker(process, ours, ours.makefile("rb"), f"http://127.0.0.1:{port}", port)


@pytest.fixture
def begun(model_python: Path, bundle: Callable[..., Path]) -> Iterator[Callable[[str], Worker]]:
    workers: list[Worker] = []

    def begin(name: str) -> Worker:
        workers.append(start(model_python, bundle(name)))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.process.kill()
        worker.process.wait()
        worker.events.close()
        worker.status.close()


@pytest.fixture(scope="module")
def worker(model_python: Path, bundle: Callable[..., Path]) -> Iterator[Worker]:
    """A worker that serves the specification's model."""
    started = start(model_python, bundle("specification"))
    assert started.event() == {"event": "healthy", "health_check": "loaded"}
    started.status.send(b"\n")
    assert started.event() == {"event": "serving"}
    yield started
    started.process.send_signal(signal.SIGTERM)
    assert started.event() == {"event": "draining"}
    assert started.process.wait(timeout=60) == 0
    started.events.close()
    started.status.close()


def test_it_predicts(worker: Worker) -> None:
    answer = httpx.post(f"{worker.url}/predict", json={"data": [[1, 2, 3, 4, 5]]})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {"predictions": [1]}


def test_it_is_healthy(worker: Worker) -> None:
    answer = httpx.get(f"{worker.url}/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "healthy", "worker_pid": worker.process.pid})
    assert httpx.head(f"{worker.url}/health").status_code == 200


def test_it_describes_itself(worker: Worker, model_python: Path) -> None:
    command = [find_uv_bin(), "pip", "list", "--format=json", "--python", str(model_python)]
    installed = json.loads(subprocess.check_output(command))
    assert httpx.get(f"{worker.url}/metadata").json()["libraries"] == {p["name"]: p["version"] for p in installed}


def test_there_is_nothing_else(worker: Worker) -> None:
    for path in ("/", "/predict/", "/docs/", "/invocations/1"):
        answer = httpx.get(worker.url + path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_wrong_method_is_answered_405_with_the_right_one(worker: Worker) -> None:
    for method, path, right in (("GET", "/predict", "POST"), ("POST", "/health", "GET"), ("PUT", "/metadata", "GET")):
        answer = httpx.request(method, worker.url + path)
        assert (answer.status_code, answer.headers["allow"]) == (405, right)


def test_a_body_over_the_limit_is_refused_whether_or_not_its_length_is_said(worker: Worker) -> None:
    with socket.create_connection(("127.0.0.1", worker.port)) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (BODY_LIMIT + 1))
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
    block = b"x" * 1024**2
    chunked = httpx.post(f"{worker.url}/predict", content=(block for _ in range(BODY_LIMIT // len(block) + 1)))
    assert (chunked.status_code, chunked.json()["code"]) == (413, "too_large")


def test_a_body_that_comes_in_parts_is_put_together(worker: Worker) -> None:
    parts = [b'{"data": [[1, 2,', b" 3, 4, 5]", b"]}"]
    assert httpx.post(f"{worker.url}/predict", content=iter(parts)).json() == {"predictions": [1]}


def test_a_bad_request_among_many_fails_alone(worker: Worker) -> None:
    with httpx.Client() as client:
        rows = [[1, 2, 3, 4, 5], [1, 2], [1, 2, 3, 4, "x"], [5, 4, 3, 2, 1]]
        answers = [client.post(f"{worker.url}/predict", json={"data": [row]}).status_code for row in rows]
    assert answers == [200, 422, 422, 200]


def test_a_worker_that_cannot_load_says_why_and_ends(begun: Callable[[str], Worker]) -> None:
    for name, stage, said in (
        ("unloadable", "load", "OSError: a file of the model is missing."),
        ("lacking", "load", "give the file to `log_model` as one of its `artifacts`"),
        ("referring", "load", "`Net` is defined in the training script"),
        ("broken", "health", "cannot predict"),
    ):
        failing = begun(name)
        event = failing.event()
        assert (event["event"], event["stage"]) == ("failed", stage)
        assert said in event["error"]
        assert failing.process.wait(timeout=60) == 1


def test_a_worker_whose_parent_goes_away_ends_while_it_loads_and_while_it_waits(begun: Callable[[str], Worker]) -> None:
    loading, waiting = begun("slow-to-load"), begun("specification")
    assert waiting.event()["event"] == "healthy"
    for orphan in (loading, waiting):
        orphan.events.close()
        orphan.status.close()
        assert orphan.process.wait(timeout=60) != 0
