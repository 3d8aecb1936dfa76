"""Parents that are missing are started again; one that is there is left alone, whatever its state."""

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from asgard.platform import supervisor
from asgard.serving import control
from asgard.serving import desired as desired_state
from asgard.serving.desired import Desired
from asgard.settings import Settings
from asgard.stacks.provider import local_server
from asgard.stacks.provider.local_server import LocalRuntime


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """Of a model that is to serve."""
    folder = tmp_path / "models" / "iris"
    folder.mkdir(parents=True)
    desired_state.write(folder, Desired("iris", "127.0.0.1", 20000, 1, 1, 1, "python", "bundle", {}))
    return folder


@pytest.mark.parametrize("hangs", [False, True], ids=["is missing", "hangs"])
def test_a_parent_is_started_again_only_where_there_is_none(
    tmp_path: Path, model_dir: Path, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []

    def restart(runtime: LocalRuntime, directory: Path, environment: object) -> None:
        started.append(directory)

    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(local_server, "restart", restart)
    runtime = LocalRuntime(tmp_path, 1, _never, _ignore, _ignore)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        if hangs:
            listener.bind(str(model_dir / desired_state.SOCKET))
            listener.listen()
        with capture_logs() as logged:
            supervisor.restart_missing(Settings(data_dir=tmp_path), runtime)
    assert started == ([] if hangs else [model_dir])
    warned = [entry["missing"] for entry in logged if "missing" in entry]
    assert warned == ([] if hangs else [str(tmp_path / "stacks" / "Pulumi.iris.yaml")])


def test_a_model_that_breaks_the_restart_does_not_keep_the_others_from_theirs(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "broken").mkdir()
    (tmp_path / "models" / "broken" / desired_state.FILE).write_text("{")
    started: list[Path] = []
    restart = local_server.restart

    def record(runtime: LocalRuntime, directory: Path, environment: Mapping[str, str]) -> None:
        if directory != model_dir:
            restart(runtime, directory, environment)
        started.append(directory)

    monkeypatch.setattr(local_server, "restart", record)
    supervisor.restart_missing(Settings(data_dir=tmp_path), LocalRuntime(tmp_path, 1, _never, _ignore, _ignore))
    assert started == [model_dir]


def _never(*_: object) -> local_server.Materialized:
    raise AssertionError


def _ignore(*_: object) -> None:
    return
