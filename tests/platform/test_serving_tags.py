"""Whose tags are taken away: an MLflow that several Asgards use holds models of all of them."""

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from asgard import naming
from asgard.errors import ModelNotFound
from asgard.platform import deploy, journal, registry, serving_tags, stackfile
from asgard.platform.admission import Admission
from asgard.platform.deploy import Tools
from asgard.platform.journal import Journal
from asgard.platform.script_templates import ScriptTemplates
from asgard.platform.tracking import Tracking, connect
from asgard.settings import Settings


class _Engine:
    """Of a backend without a stack. `outputs`: of the one that `up` brings back."""

    def __init__(self) -> None:
        self.outputs: dict[str, str] = {}

    def up(self, *_: object, **__: object) -> dict[str, str]:
        return self.outputs

    def destroy(self, *_: object, **__: object) -> bool:
        return False

    def free_dead_lock(self, *_: object) -> None:
        return


@pytest.fixture
def name(tracking: Tracking) -> str:
    """Of a registered model that serves, as MLflow says."""
    name = f"model-{uuid4().hex[:12]}"
    client = connect(tracking.uri)
    client.create_registered_model(name)
    client.create_model_version(name, "s3://bucket/model", await_creation_for=0)
    registry.mark_serving(tracking, name, 1, "http://127.0.0.1:1", f"{name}-v1-0123ab")
    return name


@pytest.fixture
def tools(tracking: Tracking, tmp_path: Path) -> Tools:
    """Of an Asgard that serves nothing and uses an MLflow that is not its own."""
    settings = Settings(data_dir=tmp_path, mlflow_tracking_uri=tracking.uri)
    settings.stacks_dir.mkdir()
    return Tools(settings, _Engine(), Admission(1, 1), ScriptTemplates())  # type: ignore[arg-type]


def _correct(tools: Tools, tracking: Tracking) -> None:
    serving_tags.correct(tools.settings, tracking, tools.engine)


def _says_that_it_serves(tracking: Tracking, name: str) -> bool:
    model, [version] = registry.get_model(tracking, name)
    assert (version.current_stage == "Production") == (naming.TAG_INFERENCE_URL in model.tags)
    return naming.TAG_INFERENCE_URL in model.tags


def test_what_another_asgard_serves_keeps_its_tags_when_this_one_starts(
    tools: Tools, tracking: Tracking, name: str
) -> None:
    _correct(tools, tools.tracking)
    assert _says_that_it_serves(tracking, name)


def test_what_another_asgard_serves_keeps_its_tags_when_this_one_is_to_destroy_it(
    tools: Tools, tracking: Tracking, name: str
) -> None:
    with pytest.raises(ModelNotFound):
        deploy.destroy(tools, name, lambda _: None)
    assert _says_that_it_serves(tracking, name)


def test_a_model_of_ours_that_serves_no_more_loses_them(tools: Tools, tracking: Tracking, name: str) -> None:
    stackfile.path_of(tools.settings.stacks_dir, name).write_text("config: {}")
    _correct(tools, tools.tracking)
    assert not _says_that_it_serves(tracking, name)


def test_of_an_mlflow_that_we_alone_use_whatever_does_not_serve_loses_them(
    tools: Tools, tracking: Tracking, name: str
) -> None:
    _correct(tools, tracking)
    assert not _says_that_it_serves(tracking, name)


def test_a_destroy_that_mlflow_cuts_short_can_be_done_again(
    tools: Tools, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise ConnectionError

    path = stackfile.path_of(tools.settings.stacks_dir, name)
    path.write_text("config: {}")
    with monkeypatch.context() as patch:
        patch.setattr(registry, "unmark_serving", gone)
        with pytest.raises(ConnectionError):
            deploy.destroy(tools, name, lambda _: None)
    deploy.destroy(tools, name, lambda _: None)
    assert not path.exists()


def _fail_after_marking(tools: Tools, name: str, stack_file: str | None) -> None:
    """As a deploy of a further version that MLflow cuts short while it is told that this one serves."""
    entry = Journal("token", name, stack_file, infrastructure=True)
    journal.begin(tools.settings.data_dir, entry)
    journal.update(tools.settings.data_dir, replace(entry, marked=True))
    deploy._put_back(tools, name, ConnectionError())
    assert journal.unfinished(tools.settings.data_dir) == []


def test_an_undo_gives_alias_and_tags_back_to_the_version_that_serves_again(
    tools: Tools, tracking: Tracking, name: str
) -> None:
    connect(tracking.uri).create_model_version(name, "s3://bucket/model", await_creation_for=0)
    former = {"model_version": "1", "inference_url": "http://127.0.0.1:1", "deployment_id": f"{name}-v1-0123ab"}
    tools.engine.outputs = former  # type: ignore[assignment, method-assign]
    registry.mark_serving(tracking, name, 2, "http://127.0.0.1:1", f"{name}-v2-4567cd")
    _fail_after_marking(tools, name, "config: {}")
    model, [newer, older] = registry.get_model(tracking, name)
    assert (newer.current_stage, older.current_stage) == ("None", "Production")
    assert model.tags[naming.TAG_DEPLOYMENT_ID] == former["deployment_id"]


def test_an_undo_of_a_first_version_takes_alias_and_tags_away(tools: Tools, tracking: Tracking, name: str) -> None:
    _fail_after_marking(tools, name, None)
    assert not _says_that_it_serves(tracking, name)
