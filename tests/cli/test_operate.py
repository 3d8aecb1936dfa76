"""`rollback`, `destroy` and `load` over a platform that remembers what it was asked; `pulumi` is the real one."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asgard.cli import operate
from asgard.errors import DeployInProgress, InfrastructureFailed, InvalidRequest, ModelNotFound
from asgard.platform import deploy, mlflow_server, model_images, service
from asgard.progress import OnProgress, Progress
from asgard.settings import Settings

from ..api.fake_platform import FakeDeployed
from . import processes
from .conftest import Run

TOOLS = object()


class Operations:
    """What was asked for, and what is done then."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.error: Exception | None = None

    def rollback(self, tools: Any, model: str, version: int | None, on_progress: OnProgress) -> FakeDeployed:
        on_progress(Progress("infrastructure", "stage", f"Rolling {model} back"))
        self._note(tools, "rollback", model, version)
        return FakeDeployed()

    def destroy(self, tools: Any, model: str, on_progress: OnProgress, *, purge: bool = False) -> None:
        on_progress(Progress("infrastructure", "stage", f"Destroying the stack {model}"))
        self._note(tools, "destroy", model, purge)

    def load(
        self, settings: Settings, tracking: Any, model: str, version: int | None, on_log: Callable[[str], None]
    ) -> str:
        on_log("Fetching the bundle")
        self._note(tracking, "load", model, version)
        return "asgard-model/iris:iris-v3-abcdef"

    def _note(self, tools: Any, *asked: Any) -> None:
        assert tools is TOOLS
        self.asked.append(asked)
        if self.error is not None:
            raise self.error


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Operations:
    @contextmanager
    def offline(settings: Settings, on_log: Callable[[str], None]) -> Iterator[Any]:
        assert settings.data_dir == Path(environment["ASGARD_DATA_DIR"])
        on_log("Building the Pulumi CLI")
        yield TOOLS

    @contextmanager
    def running(settings: Settings) -> Iterator[Any]:
        assert settings.data_dir == Path(environment["ASGARD_DATA_DIR"])
        yield TOOLS

    made = Operations()
    monkeypatch.setattr(service, "offline", offline)
    monkeypatch.setattr(mlflow_server, "running", running)
    monkeypatch.setattr(model_images, "load", made.load)
    monkeypatch.setattr(deploy, "rollback", made.rollback)
    monkeypatch.setattr(deploy, "destroy", made.destroy)
    return made


@pytest.mark.parametrize(("arguments", "version"), [([], None), (["3"], 3)])
def test_rollback_prints_the_url_alone(
    run: Run, operations: Operations, arguments: list[str], version: int | None
) -> None:
    result = run("rollback", "iris", *arguments)
    assert result.exit_code == 0
    assert result.stdout == "http://127.0.0.1:20123\n"
    assert operations.asked == [("rollback", "iris", version)]
    assert result.stderr.startswith("  Building the Pulumi CLI\ninfrastructure: Rolling iris back\n")


@pytest.mark.parametrize(("arguments", "version"), [([], None), (["3"], 3)])
def test_load_prints_the_images_name_alone(
    run: Run, operations: Operations, arguments: list[str], version: int | None
) -> None:
    result = run("load", "iris", *arguments)
    assert result.exit_code == 0
    assert result.stdout == "asgard-model/iris:iris-v3-abcdef\n"
    assert operations.asked == [("load", "iris", version)]
    assert result.stderr.startswith("  Fetching the bundle\n")


@pytest.mark.parametrize(("options", "purge"), [(["--yes"], False), (["-y", "--purge"], True)])
def test_destroy_prints_nothing_but_what_it_did(
    run: Run, operations: Operations, options: list[str], purge: bool
) -> None:
    result = run("destroy", "iris", *options)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert operations.asked == [("destroy", "iris", purge)]
    assert "iris is gone" in result.stderr
    assert ("its versions in MLflow" in result.stderr) is purge


def test_destroy_does_nothing_where_nobody_can_be_asked(run: Run, operations: Operations) -> None:
    result = run("destroy", "iris")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert operations.asked == []


@pytest.mark.parametrize(("answer", "code", "asked"), [("y\n", 0, [("destroy", "iris", False)]), ("n\n", 1, [])])
def test_destroy_asks_on_a_terminal(
    operations: Operations,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
    asked: list[Any],
) -> None:
    from typer.testing import CliRunner

    from asgard.cli import app

    class Terminal:
        stdin = type("Stdin", (), {"isatty": staticmethod(lambda: True)})

    monkeypatch.setattr(operate, "sys", Terminal)
    result = CliRunner().invoke(app, ["destroy", "iris"], input=answer, env=environment)
    assert result.exit_code == code
    assert "Delete iris: its server and its stack?" in result.stderr
    assert operations.asked == asked


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ModelNotFound("iris"), 4, "asgard models"),
        (DeployInProgress("iris"), 5, "Try again in 15 s."),
        (InvalidRequest("version", "iris has no deployed version 9"), 2, "iris has no deployed version 9"),
        (InfrastructureFailed("It crashed.", reason="Crashed", log_tail=["boom"]), 1, "  | boom"),
    ],
)
def test_a_failure_is_told_as_the_api_tells_it(
    run: Run, operations: Operations, error: Exception, code: int, words: str
) -> None:
    operations.error = error
    for command in (["rollback", "iris"], ["destroy", "iris", "--yes"], ["load", "iris"]):
        result = run(*command)
        assert result.exit_code == code
        assert words in result.stderr
        assert "Traceback" not in result.stderr
        assert result.stdout == ""


@pytest.mark.parametrize("name", ["../iris", "Iris", "platform"])
def test_what_is_no_models_name_is_refused_before_anything_is_done(run: Run, operations: Operations, name: str) -> None:
    for command in (["rollback", name], ["destroy", name, "--yes"], ["load", name]):
        assert run(*command).exit_code == 4
    assert operations.asked == []


@pytest.fixture
def pulumi(tmp_path: Path, pulumi_path: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    def pulumi(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "asgard.cli", "pulumi", *arguments],
            env=processes.environment(tmp_path, PATH=pulumi_path, **variables),
            cwd=tmp_path,
            input="from the standard input",
            capture_output=True,
            text=True,
            timeout=120,
        )

    return pulumi


@pytest.mark.parametrize("dashes", [["--"], []])
def test_pulumi_runs_in_the_stacks_folder_on_the_backend(
    pulumi: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, dashes: list[str]
) -> None:
    made = pulumi(*dashes, "stack", "init", "--stack", "iris", "--secrets-provider", "passphrase")
    assert made.returncode == 0, made.stderr
    listed = pulumi(*dashes, "stack", "ls", "--json")
    assert [stack["name"] for stack in json.loads(listed.stdout)] == ["iris"]
    assert (tmp_path / "data" / "stacks" / "Pulumi.iris.yaml").exists()
    assert list((tmp_path / "data" / "backend").rglob("iris.json"))


def test_pulumi_gets_the_standard_input_and_gives_its_exit_code(
    pulumi: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    assert pulumi("stack", "init", "--stack", "iris", "--secrets-provider", "passphrase").returncode == 0
    assert pulumi("config", "set", "--stack", "iris", "--plaintext", "note").returncode == 0
    assert "from the standard input" in (tmp_path / "data" / "stacks" / "Pulumi.iris.yaml").read_text()
    missing = pulumi("--", "stack", "output", "-s", "nothing")
    assert missing.returncode not in (0, 2)
    assert "no stack named 'nothing' found" in missing.stderr


def test_a_relative_data_folder_is_the_one_beside_the_user(
    pulumi: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    made = pulumi("stack", "init", "--stack", "iris", "--secrets-provider", "passphrase", ASGARD_DATA_DIR="beside")
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "beside" / "stacks" / "Pulumi.iris.yaml").exists()
    assert list((tmp_path / "beside" / "backend").rglob("iris.json"))
