"""One worker as the first process of a container; here with no container around it."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from asgard.serving.container import cpu_limit, memory_limit
from asgard.serving.processes import alive

from ..ports import free_port
from ..waiting import until

DEADLINE = 120


@dataclass
class Container:
    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def wait_ready(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while not self.ready():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def said(self) -> str:
        """All it printed, when it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read()


@pytest.fixture
def started(model_python: Path, bundle: Callable[..., Path]) -> Iterator[Callable[[str | Path], Container]]:
    """Starts a container of a bundle, or of that of a model in `models.SAVE`."""
    containers: list[Container] = []

    def start(what: str | Path) -> Container:
        folder = bundle(what) if isinstance(what, str) else what
        port = free_port()
        command = ["-m", "asgard_server.container", "--host", "127.0.0.1", "--port", str(port), str(folder)]
        process = subprocess.Popen(
            [model_python, *command],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder / "server"), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        containers.append(Container(process, port))
        return containers[-1]

    yield start
    for container in containers:
        container.process.kill()
        container.process.wait()
        assert container.process.stdout is not None
        container.process.stdout.close()


def test_it_serves_and_drains_on_sigterm(started: Callable[[str | Path], Container]) -> None:
    container = started("specification")
    container.wait_ready()
    with httpx.Client(base_url=container.url) as client:
        first = client.post("/predict", json={"data": [[1, 2, 3, 4, 5]]})
        assert (first.status_code, first.json()) == (200, {"predictions": [1]})
        assert client.get("/metadata").json()["deployment_id"] == "iris-v1-abcdef"
        container.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        while container.ready():  # on connections of its own
            assert time.monotonic() < deadline
        last = client.post("/predict", json={"data": [[1, 2, 3, 4, 5]]})
        assert (last.status_code, last.headers["connection"]) == (200, "close")
    assert container.process.wait(timeout=30) == 0
    said = container.said()
    assert '"event": "serving"' in said
    assert "Traceback" not in said


def test_large_bodies_are_answered_by_a_second_process_that_ends_with_the_first(
    started: Callable[[str | Path], Container], compiled: Callable[[str], Path]
) -> None:
    container = started(compiled("specification"))
    container.wait_ready()
    rows = [[1, 2, 3, 4, 5]] * 50_000
    with httpx.Client(base_url=container.url, timeout=30) as client:
        first = client.get("/health").json()["worker_pid"]
        assert client.post("/predict", json={"data": rows}).json() == {"predictions": [1] * len(rows)}
        second = client.get("/health").json()["worker_pid"]
    assert first == container.process.pid != second
    container.process.send_signal(signal.SIGTERM)
    assert container.process.wait(timeout=30) == 0
    until(lambda: not alive(second))


def test_what_is_being_answered_is_answered_before_it_ends(started: Callable[[str | Path], Container]) -> None:
    container = started("obedient")
    container.wait_ready()
    with httpx.Client(base_url=container.url, timeout=30) as client:
        request = client.build_request("POST", "/predict", json={"data": [{"order": 1.0}]})
        with socket.create_connection(("127.0.0.1", container.port)) as connection:
            body = request.content
            connection.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            time.sleep(0.3)
            container.process.send_signal(signal.SIGTERM)
            connection.settimeout(30)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert container.process.wait(timeout=30) == 0


def test_connections_are_refused_until_it_serves_and_it_ends_at_once_while_it_loads(
    started: Callable[[str | Path], Container],
) -> None:
    container = started("slow-to-load")
    deadline = time.monotonic() + DEADLINE
    while not bound(container.port):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    assert not container.ready()
    container.process.send_signal(signal.SIGTERM)
    assert container.process.wait(timeout=30) == 128 + signal.SIGTERM


def bound(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


@pytest.mark.parametrize(
    ("name", "told"), [("unloadable", "a file of the model is missing"), ("broken", "cannot predict anything")]
)
def test_a_model_that_cannot_serve_says_why_and_ends(
    name: str, told: str, started: Callable[[str | Path], Container]
) -> None:
    container = started(name)
    assert container.process.wait(timeout=DEADLINE) == 1
    assert told in container.said()


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_cores_of_its_container_are_known(files: dict[str, str], cores: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_limit(tmp_path) == cores


ALL_MEMORY = psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("file", "text", "limit"),
    [
        ("memory.max", "536870912\n", 512 << 20),
        ("memory.max", "max\n", ALL_MEMORY),
        ("memory/memory.limit_in_bytes", "536870912\n", 512 << 20),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", ALL_MEMORY),
        ("unknown", "", ALL_MEMORY),
    ],
)
def test_the_memory_of_its_container_is_known(file: str, text: str, limit: int, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert memory_limit(tmp_path) == limit
