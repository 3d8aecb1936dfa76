"""Bundles to make images of: a small one that is never run, and one whose model predicts."""

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock
from uv import find_uv_bin

from asgard.platform import bundle, environments, pythons
from asgard.serving import SERVER_REQUIREMENTS

PYTHON = "3.11"
"""Of the base image of the tests."""

SMALL = ("uvicorn", "httptools", "six")
"""Requirements with a script, an extension and a module of which there is one file."""

_HERE = "sys_platform == 'linux' and platform_machine == 'x86_64' and platform_python_implementation == 'CPython'"


def model_requirements() -> tuple[str, ...]:
    """What a saved model of tests/serving needs: the versions it was saved with, and the server's."""
    same = ("mlflow-skinny", "numpy", "pandas", "scikit-learn", "cloudpickle")
    return (*(f"{name}=={version(name)}" for name in same), *SERVER_REQUIREMENTS)


def lock(
    test_cache: Path, requirements: Sequence[str], *, markers: Sequence[str] = (_HERE,), python: str = PYTHON
) -> environments.Lock:
    """A lock of the requirements for one Python, made once."""
    key = hashlib.sha256(repr((python, markers, requirements)).encode()).hexdigest()[:16]
    folder = test_cache / "image-locks" / key
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "uv.lock").exists():
            (folder / "pyproject.toml").write_text(
                f'[project]\nname = "tests"\nversion = "0"\nrequires-python = "=={python}.*"\n'
                f"dependencies = {list(requirements)}\n"
                f"[tool.uv]\npackage = false\nenvironments = {list(markers)}\nworkspace = {{}}\n"
            )
            interpreter = pythons.installed()[python]
            run = [find_uv_bin(), "lock", "--quiet", f"--project={folder}", f"--python={interpreter}", "--no-build"]
            subprocess.run(run, check=True)
    return environments.read(folder)


def assemble(folder: Path, model: Path, lock: environments.Lock, *, name: str = "iris", number: int = 1) -> Path:
    """A bundle of a copy of the model folder."""
    copied = folder.with_name(f"{folder.name}-model")
    shutil.copytree(model, copied)
    bundle.assemble(
        folder,
        model=copied,
        environment=lock.folder,
        model_name=name,
        version=number,
        run_id="abcdef0123456789",
        python=lock.python,
    )
    return folder


def plain(folder: Path, lock: environments.Lock, *, name: str = "iris", number: int = 1, content: str = "1") -> Path:
    """A bundle whose model is one file of text."""
    model = folder.with_name(f"{folder.name}-source")
    model.mkdir(parents=True)
    (model / "MLmodel").write_text("flavors: {}\n")
    (model / "model.txt").write_text(content)
    return assemble(folder, model, lock, name=name, number=number)
