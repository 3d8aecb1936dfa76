"""What the tests of serving need: saved models, and an environment of their own to serve them in."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from uv import find_uv_bin

from asgard.serving import SERVER_REQUIREMENTS, compiling, loading
from asgard.serving.loaded import LoadedModel

from . import models
from .parents import Parents

Saved = Callable[[str], Path]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The MLflow folder of a model in `models.SAVE`, saved when it is first asked for."""
    folder = tmp_path_factory.mktemp("models")

    def save(name: str) -> Path:
        path = folder / name
        if not path.exists():
            models.SAVE[name](path)
        return path

    return save


def environment(cache: Path, requirements: tuple[str, ...], *, python_below: tuple[int, int] = (4, 0)) -> Path:
    """The interpreter of a virtual environment with these requirements, kept from run to run.

    It is this one, or where this is too new another, which uv finds or downloads.
    """
    chosen = sys.executable if sys.version_info < python_below else f">=3.10,<{'.'.join(map(str, python_below))}"
    key = hashlib.sha256(repr((sys.version, requirements)).encode()).hexdigest()[:16]
    folder = cache / "serving" / key
    python = folder / "bin" / "python"
    done = folder / "complete"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            uv = find_uv_bin()
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", chosen, str(folder)], check=True)
            install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
            subprocess.run([*install, *requirements], check=True)
            done.touch()
    return python


@pytest.fixture(scope="session")
def model_python(test_cache: Path) -> Path:
    """A model's environment with the versions that the tests save models with."""
    same = ("mlflow-skinny", "numpy", "pandas", "scikit-learn", "cloudpickle")
    return environment(test_cache, (*(f"{name}=={version(name)}" for name in same), *SERVER_REQUIREMENTS))


@pytest.fixture(scope="session")
def bundle(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A bundle of a model in `models.SAVE`: `bundle(name, version=1)`."""
    folder = tmp_path_factory.mktemp("bundles")

    def make(name: str, version: int = 1) -> Path:
        path = folder / f"{name}-{version}"
        return path if path.exists() else models.make_bundle(saved(name), path, version=version)

    return make


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """The bundle of an estimator, saved by scikit-learn's flavour, not compiled."""

    def make(estimator: Any, **arguments: Any) -> Path:
        models._sklearn(estimator, **arguments)(tmp_path / "saved")
        return models.make_bundle(tmp_path / "saved", tmp_path / "bundle")

    return make


@pytest.fixture(scope="session")
def loaded(bundle: Callable[..., Path]) -> Callable[[str], LoadedModel]:
    """A model in `models.SAVE` as a worker has it, loaded when it is first asked for."""
    return cache(lambda name: loading.load(bundle(name)))


@pytest.fixture(scope="session")
def compiled(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """As `bundle`, with the model's compiled form."""
    folder = tmp_path_factory.mktemp("compiled")

    def make(name: str, version: int = 1) -> Path:
        path = folder / f"{name}-{version}"
        if not path.exists():
            assert compiling.write(models.make_bundle(saved(name), path, version=version))["form"]
        return path

    return make


@pytest.fixture
def parents(model_python: Path, bundle: Callable[..., Path], tmp_path: Path) -> Iterator[Parents]:
    """Parents of models in a folder of the test, all of which are gone after it."""
    with Parents(tmp_path / "models", model_python, bundle) as started:
        yield started
