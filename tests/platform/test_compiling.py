"""The process that compiles a deploy's model: what it leaves in the bundle, and that nothing of it stays."""

import json
import os
import sys
from pathlib import Path

import psutil
import pytest

from asgard import naming
from asgard.platform import compiling
from asgard.platform.environments import Environment
from asgard.serving import COMPILED
from asgard.settings import Settings

from ..serving import models

HERE = Environment(Path(sys.prefix), Path(sys.executable))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    models.SAVE["specification"](tmp_path / "saved")
    return models.make_bundle(tmp_path / "saved", tmp_path / "bundle")


def compiled(bundle: Path, folder: Path, settings: Settings, **variables: str) -> tuple[dict[str, object], list[str]]:
    """What stands in about.json, and what was logged."""
    logged: list[str] = []
    with compiling.compiler(HERE, folder, "a-token", variables, settings) as compile_model:
        compile_model(bundle, on_log=logged.append)
    return json.loads((bundle / COMPILED / "about.json").read_text()), logged


def marked() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(naming.DEPLOYMENT_VARIABLE) == "a-token":
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_bundle_gets_the_compiled_form_of_its_model(bundle: Path, tmp_path: Path) -> None:
    about, logged = compiled(bundle, tmp_path / "deploy", Settings())
    assert about["form"] == "onnxruntime"
    assert logged == ["Compiled for onnxruntime"]
    assert not marked()


def test_a_setting_turns_it_off(bundle: Path, tmp_path: Path) -> None:
    with compiling.compiler(HERE, tmp_path / "deploy", "a-token", {}, Settings(compile_models=False)) as compile_model:
        compile_model(bundle, on_log=print)
        assert not marked()
    assert not (bundle / COMPILED).exists()


def test_a_process_that_ends_early_leaves_the_model_as_it_is(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "onnxruntime.py").write_text("import os; print('the end', flush=True); os._exit(3)")
    about, logged = compiled(bundle, tmp_path / "deploy", Settings(), PYTHONPATH=str(tmp_path / "broken"))
    assert about == {"reason": "The process that compiles ended early."}
    assert "the end" in logged


def test_its_process_goes_when_it_is_not_needed_after_all_and_sees_nothing_of_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASGARD_API_TOKEN", "secret")
    with compiling.compiler(HERE, tmp_path / "deploy", "a-token", {"MINE": "1"}, Settings()):
        (process,) = marked()
        seen = process.environ()
        assert (seen["MINE"], "ASGARD_API_TOKEN" in seen, seen["HOME"] == os.environ.get("HOME")) == ("1", False, False)
    assert not marked()
