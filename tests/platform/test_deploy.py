"""What the flow does where a step's own clean-up fails; its whole is tested end to end."""

import errno
from pathlib import Path
from typing import Any

import pytest

from asgard.errors import DiskFull, InfrastructureFailed, ScriptFailed
from asgard.platform import cluster, deploy, journal, registry, stackfile, training
from asgard.platform.admission import Admission
from asgard.platform.deploy import Tools
from asgard.platform.journal import Journal
from asgard.platform.requests import DeploymentChanges, DeployRequest
from asgard.platform.script_templates import ScriptTemplates
from asgard.platform.stackfile import StackFileInvalid
from asgard.settings import Settings


def test_the_scripts_failure_is_told_also_where_mlflow_went_down_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ScriptFailed("train.py ended with exit code 1.", log_tail=["ConnectionError: MLflow is gone"])

    monkeypatch.setattr(training, "run_script", fail)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = Settings(data_dir=tmp_path, mlflow_tracking_uri="http://127.0.0.1:9")
    request = DeployRequest(b"", "train.py", "iris", "iris", (), None, DeploymentChanges(), None)
    with pytest.raises(ScriptFailed, match="exit code 1") as failed:
        deploy._train(
            Tools(settings, None, Admission(1, 1), ScriptTemplates()),  # type: ignore[arg-type]
            request,
            Journal("token", "iris", None),
            tmp_path,
            None,  # type: ignore[arg-type]
            {},
            lambda _: None,
        )
    assert failed.value.run_id is None


def test_a_stack_whose_file_is_elsewhere_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "discard", lambda *_: None)
    settings = Settings(data_dir=tmp_path, mlflow_tracking_uri="http://127.0.0.1:9")
    engine = _Engine(tmp_path)
    engine.found = {"inference_url": "http://elsewhere"}
    told: list[str] = []
    with pytest.raises(InfrastructureFailed, match=r"Pulumi\.iris\.yaml is not in") as failed:
        deploy.deploy(
            Tools(settings, engine, Admission(1, 1), ScriptTemplates()),  # type: ignore[arg-type]
            DeployRequest(b"", "train.py", "iris", "iris", (), None, DeploymentChanges(), None),
            lambda progress: told.append(progress.stage),
        )
    assert (failed.value.reason, told, engine.calls) == ("StackFileMissing", [], [])


class _Engine:
    """A stack that does not come up while its file says `broken`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[str] = []
        self.found: dict[str, str] = {}

    def outputs(self, *_: Any, **__: Any) -> dict[str, str]:
        return self.found

    def up(self, *_: Any, **__: Any) -> None:
        self.calls.append("up")
        if "broken" in self.path.read_text():
            raise InfrastructureFailed("It does not come up.")

    def destroy(self, *_: Any, **__: Any) -> bool:
        self.calls.append("destroy")
        return True

    def recover(self, *_: Any, **__: Any) -> None:
        return

    def free_dead_lock(self, *_: Any) -> None:
        return


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    """A deploy has failed, and so has its undo: the stack file held an edit with which the stack does not come up."""
    for name in ("discard", "mark_failed", "unmark_serving"):
        monkeypatch.setattr(registry, name, lambda *_: None)
    settings = Settings(data_dir=tmp_path, mlflow_tracking_uri="http://127.0.0.1:9")
    path = stackfile.path_of(settings.stacks_dir, "iris")
    path.parent.mkdir()
    tools = Tools(settings, _Engine(path), Admission(1, 1), ScriptTemplates())  # type: ignore[arg-type]
    journal.begin(tmp_path, Journal("token", "iris", stack_file="broken", infrastructure=True))
    path.write_text("broken, with the new release")
    failure = InfrastructureFailed("It does not come up.")
    deploy._put_back(tools, "iris", failure)
    assert failure.undo == "incomplete"
    assert path.read_text() == "broken"
    return tools


def test_an_edit_that_lets_a_failed_undo_succeed_is_kept(stuck: Tools) -> None:
    path = stackfile.path_of(stuck.settings.stacks_dir, "iris")
    path.write_text("right")
    deploy.recover(stuck, "iris")
    assert path.read_text() == "right"
    assert journal.unfinished(stuck.settings.data_dir) == []


def test_a_model_is_destroyed_also_where_it_does_not_come_up_as_it_was(stuck: Tools) -> None:
    deploy.destroy(stuck, "iris", lambda _: None)
    assert not stackfile.path_of(stuck.settings.stacks_dir, "iris").exists()
    assert journal.unfinished(stuck.settings.data_dir) == []


def test_a_model_on_another_cluster_is_not_taken_for_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "identity", lambda _: "two")
    settings = Settings(
        data_dir=tmp_path, target="kubernetes", registry="registry.test/acme", mlflow_tracking_uri="http://127.0.0.1:9"
    )
    path = stackfile.path_of(settings.stacks_dir, "iris")
    path.parent.mkdir()
    path.write_text("config: {}")
    engine = _Engine(path)
    engine.found = {"cluster": "one"}
    tools = Tools(settings, engine, Admission(1, 1), ScriptTemplates())  # type: ignore[arg-type]
    with pytest.raises(InfrastructureFailed, match="on another cluster"):
        deploy.destroy(tools, "iris", lambda _: None)
    journal.begin(tmp_path, Journal("token", "iris", stack_file="config: {}", infrastructure=True))
    with pytest.raises(InfrastructureFailed, match="on another cluster"):
        deploy.recover(tools, "iris")
    assert (engine.calls, path.exists(), journal.unfinished(tmp_path)) == ([], True, ["iris"])


def test_a_server_whose_stack_was_removed_without_it_is_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "unmark_serving", lambda *_: None)
    monkeypatch.setattr(_Engine, "destroy", lambda *_, **__: False)
    settings = Settings(data_dir=tmp_path, mlflow_tracking_uri="http://127.0.0.1:9")
    tools = Tools(settings, _Engine(tmp_path), Admission(1, 1), ScriptTemplates())  # type: ignore[arg-type]
    folder = tmp_path / "models" / "iris"
    folder.mkdir(parents=True)
    (folder / "desired.json").write_text("{}")
    deploy.destroy(tools, "iris", lambda _: None)
    assert not folder.exists()


def test_a_stack_file_that_is_not_utf_8_is_named_and_leaves_nothing_to_undo(stuck: Tools) -> None:
    path = stackfile.path_of(stuck.settings.stacks_dir, "iris")
    path.write_text("right")
    deploy.recover(stuck, "iris")
    path.write_bytes("# Größe\n".encode("latin-1"))
    with pytest.raises(StackFileInvalid, match=r"Pulumi\.iris\.yaml is not valid YAML: it is not UTF-8"):
        deploy.rollback(stuck, "iris", None, lambda _: None)
    assert journal.unfinished(stuck.settings.data_dir) == []


def test_a_full_disk_is_told_with_what_became_of_the_undo_which_first_makes_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path, mlflow_tracking_uri="http://127.0.0.1:9")
    folder = journal.folder(tmp_path, "iris")

    def write(path: Path) -> None:
        path.mkdir(parents=True)
        raise OSError(errno.ENOSPC, "No space left on device")

    def discard(*_: Any) -> None:
        assert [path.name for path in folder.iterdir()] == ["journal.json"]
        write(tmp_path / "mlflow")

    monkeypatch.setattr(registry, "discard", discard)
    tools = Tools(settings, _Engine(tmp_path), Admission(1, 1), ScriptTemplates())  # type: ignore[arg-type]
    with pytest.raises(DiskFull) as full, deploy._operation(tools, "iris", lambda _: None):
        write(folder / "bundle")
    assert full.value.undo == "incomplete"
