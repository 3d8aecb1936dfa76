import re
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from asgard.answers import DeployAnswer
from asgard.client import Client, DeployInProgress, NotAsgard, OutOfSight, ScriptFailed, Unreachable
from asgard.errors import DeployInProgress as Busy
from asgard.errors import ScriptFailed as Failed
from asgard.platform.requests import DeploymentChanges, DeployRequest
from asgard.progress import OnProgress, Progress

from ..api.fake_platform import FakeDeployed, FakePlatform, Running
from ..cli.processes import answering
from ..waiting import until
from .conftest import Call


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_bytes("print('grüße')\n".encode())
    return path


def train() -> None:
    import mlflow

    mlflow.log_metric("accuracy", 1.0)


def test_the_answer_of_a_deploy_is_typed(call: Call, script: Path) -> None:
    answer = call("deploy", script, name="iris")
    assert answer == DeployAnswer.model_validate(FakeDeployed())
    assert answer.endpoints.predict == "http://127.0.0.1:20123/predict"


def test_progress_is_told_as_it_comes(call: Call, platform: FakePlatform, script: Path) -> None:
    told = [
        Progress("training", "stage", "Running train.py"),
        Progress("training", "log", "epoch 1 \N{SNOWMAN}"),
        Progress("infrastructure", "stage", "Bringing up the stack iris"),
    ]
    heard: list[Progress] = []

    def deploy(_: DeployRequest, on_progress: OnProgress) -> FakeDeployed:
        for number, one in enumerate(told, 1):
            on_progress(one)
            until(lambda number=number: len(heard) == number)  # type: ignore[misc]
        return FakeDeployed()

    platform.on_deploy = deploy
    call("deploy", script, name="iris", on_progress=heard.append)
    assert heard == told


def test_what_is_given_is_what_the_platform_is_asked(call: Call, platform: FakePlatform, script: Path) -> None:
    call(
        "deploy", str(script), name="iris", requirements=("mlflow", "numpy<2"), script_name="other.py",
        experiment="first try", environment={"A": "1"}, tags={"team": "research"}, replicas=3, memory="512Mi",
        cpu="500m",
    )  # fmt: skip
    assert platform.requests == [
        DeployRequest(
            script=script.read_bytes(),
            script_name="other.py",
            experiment_name="first try",
            model_name="iris",
            requirements=("mlflow", "numpy<2"),
            environment_vars={"A": "1"},
            deployment_config=DeploymentChanges(3, "512Mi", "500m"),
            tags={"team": "research"},
        )
    ]


def test_what_is_not_given_or_none_is_not_in_the_request(call: Call, platform: FakePlatform, script: Path) -> None:
    call("deploy", script, name="iris", cpu="2", memory=None, tags=None)
    assert platform.requests == [
        DeployRequest(
            script=script.read_bytes(),
            script_name="train.py",
            experiment_name="iris",
            model_name="iris",
            requirements=(),
            environment_vars=None,
            deployment_config=DeploymentChanges(cpu_limit="2"),
            tags=None,
        )
    ]


@pytest.mark.parametrize(
    ("option", "words"),
    [({"memory_limit": "1Gi"}, "unexpected keyword argument 'memory_limit'"), ({"requirements": "numpy"}, "['numpy']")],
)
def test_an_option_that_cannot_be_meant_is_refused_before_anything_is_sent(
    call: Call, platform: FakePlatform, script: Path, option: Any, words: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(words)):
        call("deploy", script, name="iris", **option)
    assert platform.requests == []


def test_a_function_is_deployed_as_a_script_of_its_own(call: Call, platform: FakePlatform) -> None:
    call("deploy", train, name="iris")
    (request,) = platform.requests
    assert request.script_name == "train.py"
    assert b"    import mlflow\n" in request.script
    assert request.script.endswith(b"\n\n\ntrain()\n")


@pytest.mark.parametrize(
    ("error", "raised", "members"),
    [
        (
            Failed("The script exited with code 1.", log_tail=["ValueError: no data"], run_id="abc123"),
            ScriptFailed,
            {"stage": "training", "log_tail": ["ValueError: no data"], "run_id": "abc123", "status": 422},
        ),
        (Busy("iris"), DeployInProgress, {"code": "deploy_in_progress", "retry_after": 15}),
    ],
)
def test_a_deploy_that_fails_raises_its_problem(
    call: Call, platform: FakePlatform, script: Path, error: Exception, raised: type[Any], members: dict[str, Any]
) -> None:
    def fail(_: DeployRequest, __: OnProgress) -> FakeDeployed:
        raise error

    platform.on_deploy = fail
    with pytest.raises(raised) as caught:
        call("deploy", script, name="iris")
    assert str(caught.value) == str(error)
    assert {name: getattr(caught.value.problem, name) for name in members} == members


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"Content-Length: 9\r\n\r\n"])
def test_a_connection_that_ends_in_the_middle_leaves_the_deploy_out_of_sight(
    call: Call, script: Path, framing: bytes
) -> None:
    with (
        answering(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + framing) as url,
        pytest.raises(OutOfSight, match="'iris'"),
    ):
        call("deploy", script, name="iris", url=url)


@pytest.mark.parametrize("content", [b"nonsense", b'{"deployment_id": 1}'])
def test_an_answer_that_is_not_understood_leaves_the_deploy_out_of_sight(
    call: Call, script: Path, content: bytes
) -> None:
    event = b"event: result\ndata: " + content + b"\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(event)
    with answering(head + event) as url, pytest.raises(OutOfSight, match="not understood"):
        call("deploy", script, name="iris", url=url)


@pytest.mark.parametrize("status", [b"200 OK", b"502 Bad Gateway"])
def test_a_page_in_place_of_events_is_not_asgard(call: Call, script: Path, status: bytes) -> None:
    head = b"HTTP/1.1 " + status + b"\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
    with answering(head) as url, pytest.raises(NotAsgard, match=rf"HTTP {status[:3].decode()}"):
        call("deploy", script, name="iris", url=url)


def test_nothing_there_is_unreachable(call: Call, script: Path) -> None:
    with socket.socket() as probe:  # bound and not listening: refused, and nobody else gets the port
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="Nothing answers"):
            call("deploy", script, name="iris", url=f"http://127.0.0.1:{probe.getsockname()[1]}")


def test_a_callback_that_raises_ends_the_waiting_and_not_the_deploy(
    server: Running, platform: FakePlatform, script: Path
) -> None:
    may_end = threading.Event()

    def deploy(_: DeployRequest, on_progress: OnProgress) -> FakeDeployed:
        on_progress(Progress("training", "stage", "Running train.py"))
        may_end.wait(60)
        return FakeDeployed()

    def post_to_a_chat(_: Progress) -> None:
        raise httpx.ConnectError("the chat is down")

    platform.on_deploy = deploy
    try:
        with Client(server.url) as api, pytest.raises(httpx.ConnectError, match="the chat is down"):
            api.deploy(script, name="iris", on_progress=post_to_a_chat)
        assert "deployed" not in platform.calls
    finally:
        may_end.set()
    until(lambda: "deployed" in platform.calls)
