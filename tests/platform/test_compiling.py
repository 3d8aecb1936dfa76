"""The process that compiles a deploy's model: what it leaves in the bundle, and that nothing of it stays."""

import json
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from asgard import naming
from asgard.platform import compiling
from asgard.platform.compiling import Compiler
from asgard.platform.environments import Environment
from asgard.serving import COMPILED
from asgard.settings import Settings

from ..serving import models

TOKEN = uuid.uuid4().hex
"""Of no other run on this machine: its processes are ended, and its folder is made anew."""

HERE = Environment(Path(sys.prefix), Path(sys.executable))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    models._sklearn(models.LARGE_FOREST)(tmp_path / "saved")
    folder = models.make_bundle(tmp_path / "saved", tmp_path / "bundle")
    (folder / "environment").mkdir()
    for name in ("pyproject.toml", "uv.lock"):
        (folder / "environment" / name).write_text('[project]\nname = "p"\ndependencies = ["scikit-learn"]\n')
    return folder


def compiled(
    bundle: Path, variables: Mapping[str, str] | None = None, settings: Settings | None = None
) -> tuple[dict[str, object], list[str]]:
    """What stands in about.json, and what was logged."""
    logged: list[str] = []
    folder = bundle.parent / "compiler" / "project"
    compiler = Compiler(HERE, folder, TOKEN, variables or {}, settings or Settings(), None)
    compiler.add_to(bundle, logged.append)
    assert not marked()
    return json.loads((bundle / COMPILED / "about.json").read_text()), logged


def marked() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(naming.DEPLOYMENT_VARIABLE) == TOKEN:
                found.append(process)
        except psutil.Error:
            continue
    return found


def broken(folder: Path, line: str) -> dict[str, str]:
    """Variables with which the process runs this line where it imports ONNX Runtime."""
    folder.mkdir()
    (folder / "onnxruntime.py").write_text(line)
    return {"PYTHONPATH": str(folder)}


def test_a_bundle_gets_the_compiled_form_of_its_model(bundle: Path) -> None:
    about, logged = compiled(bundle)
    assert about["form"] == "onnxruntime"
    assert logged == ["Compiled for onnxruntime"]


def test_a_setting_turns_it_off(bundle: Path) -> None:
    with pytest.raises(FileNotFoundError):
        compiled(bundle, settings=Settings(compile_models=False))
    assert not (bundle / COMPILED).exists()


def test_a_process_that_ends_early_leaves_the_model_as_it_is(bundle: Path, tmp_path: Path) -> None:
    about, logged = compiled(bundle, broken(tmp_path / "b", "import os; print('the end', flush=True); os._exit(3)"))
    assert about == {"reason": "Compiling it failed: compile_model.py exited with code 3: the end"}
    assert "the end" in logged


def test_a_process_that_hangs_leaves_the_model_as_it_is(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "TIMEOUT_SECONDS", 8.0)
    about, _ = compiled(bundle, broken(tmp_path / "b", "import time; time.sleep(600)"))
    assert about == {"reason": "Compiling it took longer than 8 s."}


def test_the_process_sees_nothing_of_the_platform(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASGARD_API_TOKEN", "secret")
    tell = broken(tmp_path / "b", "import os; print(sorted(os.environ)); os._exit(3)")
    _, logged = compiled(bundle, {"MINE": "1", **tell})
    assert "'MINE'" in logged[0]
    assert "ASGARD_API_TOKEN" not in logged[0]


def test_a_model_of_another_flavour_costs_no_process(bundle: Path) -> None:
    (bundle / "model" / "MLmodel").write_text("flavors:\n  python_function: {}\n  spacy: {}\n")
    about, _ = compiled(bundle)
    assert about == {"reason": "There is no compiled form of models of the flavour spacy."}
    assert not (bundle.parent / "compiler").exists()
