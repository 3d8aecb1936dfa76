import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, provider_pb2_grpc

from asgard.cli import provider
from asgard.stacks.provider.local_server import TYPE

from ..waiting import until
from . import processes

PLUGIN = ["-c", "from asgard.cli.provider import main; main()", "127.0.0.1:1"]


def channel(port: str) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{port}")


def test_the_console_script_that_pulumi_looks_for_is_the_plugin() -> None:
    (script,) = entry_points(group="console_scripts", name="pulumi-resource-asgard")
    assert script.load() is provider.main


def test_it_prints_its_port_and_answers_the_engine_there(tmp_path: Path) -> None:
    with processes.started(PLUGIN, tmp_path) as process, channel(processes.first_line(process, tmp_path)) as engine:
        stub = provider_pb2_grpc.ResourceProviderStub(engine)
        assert stub.GetPluginInfo(Empty(), wait_for_ready=True).version
        gone = stub.Read(provider_pb2.ReadRequest(id="iris", urn=f"urn:pulumi:iris::asgard-models::{TYPE}::iris"))
        assert gone.id == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_the_engine_says_so(tmp_path: Path, number: signal.Signals) -> None:
    with processes.started(PLUGIN, tmp_path) as process:
        processes.first_line(process, tmp_path)
        process.send_signal(number)
        assert processes.ended(process) == 0
    assert processes.errors(tmp_path) == ""


class Listening(engine_pb2_grpc.EngineServicer):
    """An engine that only remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []

    def Log(self, request: Any, context: grpc.ServicerContext) -> Empty:  # noqa: N802 - gRPC's name
        self.told.append((request.severity, request.message))
        return Empty()


def test_the_engine_is_told_what_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    engine = Listening()
    server = grpc.server(ThreadPoolExecutor())
    engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    report = provider.reporter(["-logtostderr", f"127.0.0.1:{port}"])
    report("iris: version 2 serves", failed=False)
    report("iris: OOMKilled", failed=True)
    assert engine.told == [(engine_pb2.INFO, "iris: version 2 serves"), (engine_pb2.ERROR, "iris: OOMKilled")]
    server.stop(None).wait()
    assert capsys.readouterr() == ("", "")
    report("iris: nobody listens", failed=True)
    provider.reporter([])("iris: nobody ever did", failed=False)
    assert capsys.readouterr() == ("", "iris: nobody listens\niris: nobody ever did\n")


ENGINE = """
import subprocess, sys
plugin = subprocess.Popen([sys.executable, *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
plugin.stdout.readline()
print(plugin.pid, flush=True)
plugin.wait()
"""


def test_it_ends_when_the_engine_was_killed(tmp_path: Path) -> None:
    with processes.started(["-c", ENGINE, *PLUGIN], tmp_path) as engine:
        plugin = int(processes.first_line(engine, tmp_path))
        engine.kill()
        until(lambda: not _runs(plugin))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_setting_that_is_not_valid_is_told_without_a_traceback(tmp_path: Path) -> None:
    with processes.started(PLUGIN, tmp_path, ASGARD_HEALTH_TIMEOUT_SECONDS="soon") as process:
        assert processes.ended(process) == 1
    assert "ASGARD_HEALTH_TIMEOUT_SECONDS" in processes.errors(tmp_path)
    assert "Traceback" not in processes.errors(tmp_path)


SLOW = {"mlflow", "feast", "fastapi", "uvicorn", "sqlalchemy", "pandas"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("asgard.cli.provider", SLOW),
        ("asgard.cli", SLOW | {"pulumi", "grpc", "pydantic", "httpx", "structlog", "rich"}),
    ],
)
def test_what_takes_long_to_import_is_not_imported_at_start(module: str, unwanted: set[str]) -> None:
    found = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert not set(found.stdout.split()) & unwanted
