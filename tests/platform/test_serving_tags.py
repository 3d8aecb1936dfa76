"""Whose tags are taken away: an MLflow that several Asgards use holds models of all of them."""

from pathlib import Path
from uuid import uuid4

import pytest

from asgard import naming
from asgard.errors import ModelNotFound
from asgard.platform import deploy, registry, serving_tags, stackfile
from asgard.platform.admission import Admission
from asgard.platform.deploy import Tools
from asgard.platform.script_templates import ScriptTemplates
from asgard.platform.tracking import Tracking, connect
from asgard.settings import Settings


class _Engine:
    """Of a backend without a stack."""

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
