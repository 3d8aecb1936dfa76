"""Stand-ins for tests of the API: a platform that does what a test says, and a real server over it."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import httpx

from asgard.api.app import create_server
from asgard.errors import ModelNotFound
from asgard.platform.registry import ModelVersion, RegisteredModel
from asgard.platform.requests import DeployRequest
from asgard.platform.status import PlatformStatus
from asgard.progress import OnProgress
from asgard.settings import Settings

from ..waiting import until

DEADLINE_SECONDS = 60.0

EXAMPLE: dict[str, Any] = {
    "script_content": "cHJpbnQoMSkK",  # print(1)
    "script_name": "train.py",
    "experiment_name": "iris experiment",
    "model_name": "iris",
    "requirements": ["mlflow", "scikit-learn==1.3.0"],
}


@dataclass(frozen=True)
class FakeDeployed:
    deployment_id: str = "iris-v1-abc123"
    model_name: str = "iris"
    model_version: int = 1
    run_id: str = "abc123def"
    inference_url: str = "http://127.0.0.1:20123"
    endpoints: Mapping[str, str] = field(
        default_factory=lambda: {name: f"http://127.0.0.1:20123/{name}" for name in ("predict", "health", "metadata")}
    )
    namespace: str = "asgard"
    image_uri: str = "file:///bundles/iris/0123"
    deployment_time_seconds: float = 1.25
    created_at: datetime = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


NOON = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
LATER = datetime(2026, 1, 15, 13, 30, 0, 5000, tzinfo=timezone(timedelta(hours=1)))

STATUS = PlatformStatus(
    mlflow_status="healthy",
    mlflow_uri="http://127.0.0.1:5000",
    feast_status="starting",
    feast_repo_path="/data/feast",
    deployment_service_status="unhealthy",
    deployment_service_ready=False,
    timestamp=NOON,
)


def registered(name: str, latest_version: int = 1) -> RegisteredModel:
    return RegisteredModel(name, "", NOON, LATER, latest_version, {"team": "a"})


def version(number: int, stage: str) -> ModelVersion:
    return ModelVersion(number, "abc123def", "READY", NOON, stage, "")


class FakePlatform:
    """What it was told, and what it does; `on_deploy` is replaced by tests."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.calls: list[str] = []
        self.requests: list[DeployRequest] = []
        self.names = ["iris", "team/models/élan 50%", "?#&"]
        self.on_deploy: Callable[[DeployRequest, OnProgress], FakeDeployed] = lambda _, __: FakeDeployed()
        self.on_models: Callable[[], None] = lambda: None
        self.on_status: Callable[[], PlatformStatus] = lambda: STATUS

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def deploy(self, request: DeployRequest, on_progress: OnProgress) -> FakeDeployed:
        self.requests.append(request)
        try:
            return self.on_deploy(request, on_progress)
        finally:
            self.calls.append("deployed")

    def models(self) -> list[RegisteredModel]:
        self.on_models()
        return [registered(name) for name in self.names]

    def model(self, name: str) -> tuple[RegisteredModel, list[ModelVersion]]:
        if name not in self.names:
            raise ModelNotFound(name)
        return registered(name, latest_version=2), [version(2, "Production"), version(1, "None")]

    def status(self) -> PlatformStatus:
        return self.on_status()


@dataclass(frozen=True)
class Running:
    """A server in a thread. `end` is what SIGTERM does."""

    url: str
    port: int
    end: Callable[[], None]
    thread: threading.Thread


@contextmanager
def running(settings: Settings, platform: FakePlatform) -> Iterator[Running]:
    server = create_server(settings, "127.0.0.1", 0, cast("Any", platform))
    thread = threading.Thread(target=server.run)
    thread.start()

    def end() -> None:
        server.should_exit = True

    try:
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Running(f"http://127.0.0.1:{port}", port, end, thread)
    finally:
        end()
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


def events(text: str) -> list[tuple[str, Any]]:
    """Name and data of each event of a stream; comments as ("", comment)."""
    found = []
    for block in filter(None, text.split("\n\n")):
        if block.startswith(":"):
            found.append(("", block[1:].strip()))
        else:
            name, data = block.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def post(url: str, body: object = None, **options: Any) -> httpx.Response:
    return httpx.post(
        f"{url}/mlops/deploy", json=EXAMPLE if body is None else body, timeout=DEADLINE_SECONDS, **options
    )
