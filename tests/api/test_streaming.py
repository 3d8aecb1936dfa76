"""Deploys told as events, clients that are slow or gone, and servers that end meanwhile."""

import asyncio
import http.client
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic_core import to_json

from asgard.answers import DeployAnswer
from asgard.api import streaming
from asgard.api.streaming import BUFFER_CHARACTERS, EventStream, ProgressBuffer, wants_events
from asgard.errors import DeployInProgress
from asgard.platform.requests import DeployRequest
from asgard.progress import OnProgress, Progress
from asgard.settings import Settings

from ..ports import free_port
from ..waiting import until
from .fake_platform import (
    DEADLINE_SECONDS,
    EXAMPLE,
    FakeDeployed,
    FakePlatform,
    Running,
    events,
    post,
    running,
)

STREAM = {"Accept": "text/event-stream"}
ANSWER = DeployAnswer.model_validate(FakeDeployed())


class Held:
    """A deploy that says one stage and then waits for `release`."""

    def __init__(self, platform: FakePlatform) -> None:
        self.began, self.release = threading.Event(), threading.Event()
        platform.on_deploy = self

    def __call__(self, _: DeployRequest, on_progress: OnProgress) -> FakeDeployed:
        on_progress(Progress("training", "stage", "Running train.py"))
        self.began.set()
        assert self.release.wait(DEADLINE_SECONDS)
        return FakeDeployed()


def ask(port: int, accept: str) -> http.client.HTTPConnection:
    """The request of a client that has not read anything yet and hardly buffers."""
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.sock = socket.socket()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sock.settimeout(DEADLINE_SECONDS)
    client.sock.connect(("127.0.0.1", port))
    client.request("POST", "/mlops/deploy", to_json(EXAMPLE), {"Accept": accept, "Content-Type": "application/json"})
    return client


def test_a_stream_tells_stages_and_lines_in_order_and_last_the_answer(server: Running, platform: FakePlatform) -> None:
    def deploy(_: DeployRequest, on_progress: OnProgress) -> FakeDeployed:
        on_progress(Progress("training", "stage", "Running train.py"))
        on_progress(Progress("training", "log", "accuracy 0.97 \r\n data: é \udce9"))
        on_progress(Progress("infrastructure", "stage", "Bringing it up"))
        return FakeDeployed()

    platform.on_deploy = deploy
    streamed = post(server.url, headers=STREAM)
    assert streamed.status_code == 200
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.headers["cache-control"] == "no-store"
    plain = post(server.url).json()
    assert events(streamed.text) == [
        ("stage", {"stage": "training", "message": "Running train.py"}),
        ("log", {"stage": "training", "line": "accuracy 0.97 \r\n data: é \udce9"}),
        ("stage", {"stage": "infrastructure", "message": "Bringing it up"}),
        ("result", plain),
    ]


def test_events_come_while_the_deploy_runs(server: Running, platform: FakePlatform) -> None:
    held = Held(platform)
    with httpx.stream("POST", f"{server.url}/mlops/deploy", json=EXAMPLE, headers=STREAM, timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "event: stage"
        assert "deployed" not in platform.calls
        held.release.set()
        assert "event: result" in list(lines)


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [(DeployInProgress("iris"), "deploy_in_progress", 409), (RuntimeError("hunter2"), "internal_error", 500)],
)
def test_a_deploy_that_fails_ends_with_the_problem_that_plain_json_gets(
    server: Running, platform: FakePlatform, error: Exception, code: str, status: int
) -> None:
    def fail(_: DeployRequest, __: OnProgress) -> FakeDeployed:
        raise error

    platform.on_deploy = fail
    streamed, plain = post(server.url, headers=STREAM), post(server.url)
    ((name, told),) = events(streamed.text)
    assert (name, told["code"], told["status"]) == ("error", code, status)
    assert plain.status_code == status
    assert {**told, "reference": 0, "detail": 0} == {**plain.json(), "reference": 0, "detail": 0}
    assert told.get("reference") in (None, streamed.headers["x-request-id"])
    assert "hunter2" not in streamed.text


def test_a_wrong_request_is_answered_with_its_status_before_any_stream(server: Running) -> None:
    answer = post(server.url, {}, headers=STREAM)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("text/event-stream", True),
        ("application/json, Text/Event-Stream; q=0.5", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream; q=0.000", False),
        ("text/event-stream; q=x", True),
        ("*/*", False),
        ("text/*", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_only_who_names_events_gets_them(accept: str, wanted: bool) -> None:
    assert wants_events(accept) is wanted


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_client_that_goes_away_changes_nothing(server: Running, platform: FakePlatform, accept: str) -> None:
    held = Held(platform)
    client = ask(server.port, accept)
    assert held.began.wait(DEADLINE_SECONDS)
    client.close()
    assert httpx.get(f"{server.url}/health").status_code == 200  # the server has had its turn to notice
    assert platform.calls == []
    held.release.set()
    until(lambda: platform.calls == ["deployed"])


def test_a_client_that_does_not_read_cannot_hold_up_its_deploy(server: Running, platform: FakePlatform) -> None:
    count, line = 200_000, "x" * 200

    def chatter(_: DeployRequest, on_progress: OnProgress) -> FakeDeployed:
        on_progress(Progress("training", "stage", "first"))
        for _number in range(count):
            on_progress(Progress("training", "log", line))
        on_progress(Progress("infrastructure", "stage", "second"))
        return FakeDeployed()

    platform.on_deploy = chatter
    client = ask(server.port, "text/event-stream")
    until(lambda: platform.calls == ["deployed"])  # with nothing read yet
    received = client.getresponse().read().decode()
    client.close()
    told = events(received)
    assert [data["message"] for name, data in told if name == "stage"] == ["first", "second"]
    assert told[-1] == ("result", ANSWER.model_dump(mode="json"))
    lines = [data["line"] for name, data in told if name == "log"]
    notes = [text for text in lines if "left out" in text]
    assert notes
    assert sum(int(note[1:].split()[0]) for note in notes) + len(lines) - len(notes) == count
    assert len(received) < count * len(line) / 2


def collect(work: Callable[[ProgressBuffer, "asyncio.Future[DeployAnswer]"], AsyncIterator[bytes]]) -> str:
    async def run() -> str:
        loop = asyncio.get_running_loop()
        return b"".join([chunk async for chunk in work(ProgressBuffer(loop, 100), loop.create_future())]).decode()

    return asyncio.run(run())


def test_a_full_buffer_leaves_out_lines_never_stages_and_says_how_many_in_their_place() -> None:
    def work(buffer: ProgressBuffer, outcome: "asyncio.Future[DeployAnswer]") -> AsyncIterator[bytes]:
        for number in range(10):
            buffer.add(Progress("training", "log", f"{number}" * 40))
        buffer.add(Progress("bundle", "stage", "y" * 1000))
        buffer.add(Progress("bundle", "log", "lost"))
        outcome.set_result(ANSWER)
        return streaming.events(buffer, outcome)

    told = events(collect(work))
    assert [(name, data.get("line") or data.get("message")) for name, data in told[:-1]] == [
        ("log", "0" * 40),
        ("log", "1" * 40),
        ("log", "[8 lines left out: they came faster than they were read]"),
        ("stage", "y" * 1000),
        ("log", "[1 lines left out: they came faster than they were read]"),
    ]
    assert told[-1][0] == "result"


def test_a_single_line_longer_than_the_buffer_passes() -> None:
    def work(buffer: ProgressBuffer, outcome: "asyncio.Future[DeployAnswer]") -> AsyncIterator[bytes]:
        buffer.add(Progress("training", "log", "x" * 1000))
        outcome.set_result(ANSWER)
        return streaming.events(buffer, outcome)

    assert events(collect(work))[0] == ("log", {"stage": "training", "line": "x" * 1000})


def test_silence_is_broken_by_heartbeats() -> None:
    async def work(buffer: ProgressBuffer, outcome: "asyncio.Future[DeployAnswer]") -> AsyncIterator[bytes]:
        heartbeats = 0
        async for chunk in streaming.events(buffer, outcome, heartbeat_seconds=0.01):
            yield chunk
            heartbeats += chunk == b": heartbeat\n\n"
            if heartbeats == 3 and not outcome.done():
                outcome.set_result(ANSWER)

    told = events(collect(work))
    assert told[:-1] == [("", "heartbeat")] * 3
    assert told[-1][0] == "result"
    assert streaming.HEARTBEAT_SECONDS == 15
    assert BUFFER_CHARACTERS < 1024**2


def test_progress_after_the_loop_has_ended_is_harmless() -> None:
    loop = asyncio.new_event_loop()
    buffer = ProgressBuffer(loop)
    loop.close()
    buffer.add(Progress("training", "stage", "late"))


def test_a_stream_lasts_as_long_as_its_events_when_sending_fails() -> None:
    produced = []

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(3):
            produced.append(number)
            yield b"x"

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise OSError

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    asyncio.run(EventStream(chunks())({"type": "http"}, receive, send))
    assert produced == [0, 1, 2]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("leaves", [True, False])
def test_a_server_told_to_end_finishes_what_runs_and_then_stops_the_platform(
    tmp_path: Path, accept: str, leaves: bool
) -> None:
    platform = FakePlatform()
    held = Held(platform)
    with running(Settings(data_dir=tmp_path, api_token=None), platform) as server:
        client = ask(server.port, accept)
        assert held.began.wait(DEADLINE_SECONDS)
        if leaves:
            client.close()
        server.end()
        until(lambda: refuses(server.port))
        assert server.thread.is_alive()
        assert platform.calls == ["start"]
        held.release.set()
        server.thread.join(DEADLINE_SECONDS)
        assert platform.calls == ["start", "deployed", "stop"]
        if not leaves:
            assert b'"status":"deployed"' in client.getresponse().read()
            client.close()


def test_a_server_told_to_end_waits_no_longer_than_its_bound(tmp_path: Path) -> None:
    platform = FakePlatform()
    held = Held(platform)
    with running(Settings(data_dir=tmp_path, api_token=None, shutdown_timeout_seconds=1), platform) as server:
        client = ask(server.port, "application/json")
        assert held.began.wait(DEADLINE_SECONDS)
        server.end()
        server.thread.join(DEADLINE_SECONDS)
        assert platform.calls == ["start", "stop"]
        client.close()
    held.release.set()
    until(lambda: "deployed" in platform.calls)


SERVING = """
import pathlib, sys
from asgard import logs
from asgard.api.app import create_server
from asgard.settings import Settings

sys.path.append(sys.argv[1])
from tests.api.fake_platform import FakeDeployed, FakePlatform
from tests.waiting import until

folder = pathlib.Path(sys.argv[2])

def deploy(request, on_progress):
    (folder / "began").touch()
    until((folder / "release").exists)
    return FakeDeployed()

logs.configure("info", "console")
platform = FakePlatform()
platform.on_deploy = deploy
create_server(Settings(data_dir=folder, api_token=None), "127.0.0.1", int(sys.argv[3]), platform).run()
"""


def test_sigterm_ends_the_process_once_the_deploy_is_answered(tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVING, str(Path(__file__).parents[2]), str(tmp_path), str(port)]
    )
    try:
        until(lambda: process.poll() is not None or not refuses(port))
        assert process.poll() is None
        client = ask(port, "application/json")
        until((tmp_path / "began").exists)
        process.send_signal(signal.SIGTERM)
        until(lambda: refuses(port))
        assert process.poll() is None
        (tmp_path / "release").touch()
        assert client.getresponse().status == 200
        client.close()
        assert process.wait(DEADLINE_SECONDS) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # the listener closed in the middle of the handshake: the next one is refused
        return False
    return False
