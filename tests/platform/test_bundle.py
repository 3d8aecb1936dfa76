import json
import os
from pathlib import Path

import pytest

from asgard.platform import bundle


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path]:
    model, environment = tmp_path / "model", tmp_path / "project"
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {}\n")
    environment.mkdir()
    for name in ("pyproject.toml", "uv.lock", "train.py"):
        (environment / name).write_text(name)
    return model, environment


def assemble(folder: Path, parts: tuple[Path, Path], version: int = 1) -> str:
    model, environment = parts
    return bundle.assemble(
        folder,
        model=model,
        environment=environment,
        model_name="iris",
        version=version,
        run_id="abcdef123",
        python="3.11",
    )


def test_a_bundle_holds_model_lock_and_server_and_says_what_it_is(tmp_path: Path, parts: tuple[Path, Path]) -> None:
    folder = tmp_path / "bundle"
    assemble(folder, parts)
    assert (folder / "model/MLmodel").read_text() == "flavors: {}\n"
    assert sorted(path.name for path in (folder / "environment").iterdir()) == ["pyproject.toml", "uv.lock"]
    assert (folder / "server/asgard_server/__main__.py").exists()
    assert json.loads((folder / "bundle.json").read_text()) == {
        "schema": 1,
        "model_name": "iris",
        "model_version": "1",
        "run_id": "abcdef123",
        "deployment_id": "iris-v1-abcdef",
        "python": "3.11",
    }


def test_the_digest_is_that_of_the_content(tmp_path: Path, parts: tuple[Path, Path]) -> None:
    folder = tmp_path / "bundle"
    digest = assemble(folder, parts)
    assert bundle.digest(folder) == digest
    (folder / "model/MLmodel").write_text("flavors: {a: 1}\n")
    assert bundle.digest(folder) != digest


def test_times_and_byte_code_do_not_change_the_digest(tmp_path: Path, parts: tuple[Path, Path]) -> None:
    folder = tmp_path / "bundle"
    digest = assemble(folder, parts)
    os.utime(folder / "bundle.json", (0, 0))
    cache = folder / "server/asgard_server/__pycache__"
    cache.mkdir()
    (cache / "app.pyc").touch()
    assert bundle.digest(folder) == digest
