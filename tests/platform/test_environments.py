"""Environments with the real uv and the real package index."""

import errno
import os
import shutil
import socket
import subprocess
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgard import serving
from asgard.errors import EnvironmentUnavailable, RequirementsConflict
from asgard.platform import environments, processes, pythons, uv_tool
from asgard.platform.environments import Environment, Lock
from asgard.settings import Settings

from ..waiting import until

EXAMPLE = ["mlflow", "scikit-learn==1.3.0"]
SMALL = ["mlflow-skinny", "six"]


@pytest.fixture(scope="module")
def shared(test_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings whose cache lasts from run to run."""
    return Settings(data_dir=tmp_path_factory.mktemp("data"), cache_dir=test_cache / "asgard")


@pytest.fixture
def fresh(tmp_path: Path) -> Settings:
    """Settings whose cache is empty."""
    return Settings(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")


@pytest.fixture(scope="module")
def example(shared: Settings) -> tuple[Lock, Environment]:
    """The specification's requirements."""
    lock = environments.resolve(EXAMPLE, shared.data_dir / "example", shared, ignore)
    return lock, environments.ensure(lock, shared, ignore)


def ignore(_: str) -> None:
    return


def output_of(environment: Environment, code: str) -> str:
    variables = {"PATH": os.defpath}
    run = subprocess.run([environment.python, "-c", code], env=variables, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def locked(lock: Lock) -> dict[str, str]:
    packages = tomllib.loads((lock.folder / "uv.lock").read_text())["package"]
    return {package["name"]: package["version"] for package in packages}


def test_the_example_gets_the_newest_python_that_has_wheels_for_it(example: tuple[Lock, Environment]) -> None:
    lock, environment = example
    assert lock.python == "3.11"
    code = "import sys, sklearn; print(*sys.version_info[:2], sklearn.__version__)"
    assert output_of(environment, code) == "3 11 1.3.0"


def test_the_example_gets_the_limits_it_needs(example: tuple[Lock, Environment]) -> None:
    versions = locked(example[0])
    assert versions["numpy"].startswith("1.")
    assert versions["skops"].startswith("0.13.")


def test_the_environment_can_run_the_model_server(example: tuple[Lock, Environment]) -> None:
    assert output_of(example[1], "import httptools, uvloop, orjson, mlflow.pyfunc; print('ok')") == "ok"


def test_what_compiled_models_need_is_in_the_environment(example: tuple[Lock, Environment]) -> None:
    assert output_of(example[1], "import onnxruntime; print('ok')") == "ok"


def test_what_compiled_models_need_is_left_out_where_another_package_would_get_another_version_for_it(
    fresh: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = environments.resolve(SMALL, tmp_path / "bare", fresh.model_copy(update={"compile_models": False}), ignore)
    for number, wish in enumerate(("python-dateutil>=99", "python-dateutil<2.9")):
        monkeypatch.setattr(serving, "COMPILED_REQUIREMENTS", (wish,))
        said: list[str] = []
        lock = environments.resolve(SMALL, tmp_path / str(number), fresh, said.append)
        assert lock.digest == bare.digest
        assert any(wish in line for line in said)


def test_what_compiled_models_need_is_asked_of_the_index_where_uvs_cache_does_not_have_it(
    fresh: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setattr(serving, "COMPILED_REQUIREMENTS", ("iniconfig",))
    asked: list[bool] = []

    def run(*arguments: str, **options: Any) -> str:
        if "lock" in arguments:
            asked.append("--offline" not in arguments)
        return real(*arguments, **options)

    real = uv_tool.run
    monkeypatch.setattr(uv_tool, "run", run)
    for name, from_index in (("first", [True, False, True]), ("again", [True, False])):
        asked.clear()
        settings = fresh.model_copy(update={"cache_dir": tmp_path / name})
        lock = environments.resolve(["six"], tmp_path / f"{name} project", settings, ignore)
        assert "iniconfig" in locked(lock)
        assert asked == from_index


def test_the_same_request_again_resolves_and_installs_nothing(
    example: tuple[Lock, Environment], shared: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The lock of the run before may be too old to be used unasked: resolve once more.
    environments.resolve(EXAMPLE, tmp_path / "before", shared, ignore)
    monkeypatch.setattr(uv_tool, "run", pytest.fail)
    lock = environments.resolve(list(reversed(EXAMPLE)), tmp_path / "again", shared, ignore)
    environment = environments.ensure(lock, shared, ignore)
    assert environment.path.exists()
    assert environments.read(tmp_path / "again") == lock


def test_an_environment_comes_back_from_the_folder_of_its_lock_alone(fresh: Settings, tmp_path: Path) -> None:
    lock = environments.resolve(SMALL, tmp_path / "project", fresh, ignore)
    environments.ensure(lock, fresh, ignore)
    kept = tmp_path / "bundle" / "environment"
    kept.mkdir(parents=True)
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(lock.folder / name, kept)
    shutil.rmtree(lock.folder)
    shutil.rmtree(fresh.cache_dir)

    found = environments.read(kept)
    assert (found.digest, found.python) == (lock.digest, lock.python)
    assert output_of(environments.ensure(found, fresh, ignore), "import six, mlflow; print('ok')") == "ok"
    assert sorted(path.name for path in kept.iterdir()) == ["pyproject.toml", "uv.lock"]


def test_a_workspace_around_the_data_folder_has_no_part_in_it(fresh: Settings, tmp_path: Path) -> None:
    project = '[project]\nname = "around"\nversion = "1"\nrequires-python = ">=3.8"\ndependencies = ["tqdm"]\n'
    (tmp_path / "pyproject.toml").write_text(f'{project}[tool.uv.workspace]\nmembers = ["data/*/*"]\n')
    lock = environments.resolve(SMALL, tmp_path / "data" / "deploys" / "project", fresh, ignore)
    assert {"six", "mlflow-skinny"} <= set(locked(lock))
    assert not {"around", "tqdm"} & set(locked(lock))
    assert not (tmp_path / "uv.lock").exists()


def test_an_environment_that_was_not_finished_or_lost_its_python_is_made_again(fresh: Settings, tmp_path: Path) -> None:
    lock = environments.resolve(SMALL, tmp_path / "project", fresh, ignore)
    partial = fresh.cache_dir / "environments" / lock.digest
    (partial / "bin").mkdir(parents=True)
    (partial / "bin" / "python").write_text("half written")
    environment = environments.ensure(lock, fresh, ignore)
    assert output_of(environment, "print('ok')") == "ok"

    environment.python.unlink()
    environment.python.symlink_to(tmp_path / "a python that was removed")
    assert output_of(environments.ensure(lock, fresh, ignore), "print('ok')") == "ok"


def test_two_deploys_that_come_together_share_one_environment(fresh: Settings, tmp_path: Path) -> None:
    made: list[Environment] = []
    installed: list[str] = []

    def deploy(folder: Path) -> None:
        lock = environments.resolve(SMALL, folder, fresh, ignore)
        made.append(environments.ensure(lock, fresh, installed.append))

    threads = [threading.Thread(target=deploy, args=(tmp_path / str(number),)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3
    assert len({environment.path for environment in made}) == 1
    assert len([line for line in installed if line.startswith("Installing")]) == 1
    assert output_of(made[0], "import six; print('ok')") == "ok"


def test_an_mlflow_that_imports_pkg_resources_gets_the_setuptools_that_has_it(fresh: Settings, tmp_path: Path) -> None:
    lock = environments.resolve(["mlflow-skinny==2.9.2"], tmp_path / "project", fresh, ignore)
    environment = environments.ensure(lock, fresh, ignore)
    assert output_of(environment, "import mlflow; print(mlflow.__version__)") == "2.9.2"


def test_a_new_environment_is_compiled_beside_its_first_script_and_once(
    fresh: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = environments.resolve(SMALL, tmp_path / "project", fresh, ignore)
    environment = environments.ensure(lock, fresh, ignore)
    (packages,) = environment.path.glob("lib/python3*/site-packages")
    assert not list(packages.glob("pandas/**/*.pyc"))
    environments.compile_beside(environment)
    until(lambda: list(packages.glob("pandas/core/__pycache__/*.pyc")))
    until(lambda: not processes.run_from(environment.path))
    monkeypatch.setattr(threading, "Thread", pytest.fail)
    environments.compile_beside(environment)


def test_an_environment_that_is_used_again_outlives_a_full_disk(
    fresh: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(path: Path, _: str) -> None:
        path.open("w").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    lock = environments.resolve(SMALL, tmp_path / "project", fresh, ignore)
    environment = environments.ensure(lock, fresh, ignore)
    os.utime(environment.path / ".ready", (0, 0))
    monkeypatch.setattr(Path, "write_text", fill)
    assert environments.ensure(lock, fresh, pytest.fail) == environment
    assert environments.prune(fresh.cache_dir, before=1) == []


def test_an_environment_with_other_start_hooks_is_made_again(fresh: Settings, tmp_path: Path) -> None:
    lock = environments.resolve(SMALL, tmp_path / "project", fresh, ignore)
    environment = environments.ensure(lock, fresh, ignore)
    (environment.path / ".ready").write_text("of another version")
    installed: list[str] = []
    environments.ensure(lock, fresh, installed.append)
    assert any(line.startswith("Installing") for line in installed)


def test_what_skops_looks_through_begins_with_what_it_looks_for(example: tuple[Lock, Environment]) -> None:
    code = """
import sys
assert not {"numpy", "scipy"} & set(sys.modules)
import mlflow
order = list(sys.modules)
print(order.index("numpy") < order.index("scipy.special") < order.index("mlflow.version"))
"""
    assert output_of(example[1], code) == "True"


def test_files_are_linked_not_copied(example: tuple[Lock, Environment]) -> None:
    found = output_of(example[1], "import os, mlflow; print(os.stat(mlflow.__file__).st_nlink)")
    assert int(found) > 1


@pytest.mark.parametrize(
    ("requirements", "told"),
    [
        (
            ["mlflow-skinny", "matplotlib==3.5.0", "pandas==3.0.0"],
            ["(Python {newer}) Because matplotlib==3.5.0", "(Python 3.10) Because pandas==3.0.0"],
        ),
        (
            ["mlflow-skinny", "numpy==1.24.4", "pandas==3.0.0"],
            ["pandas==3.0.0 depends on numpy>=1.26", "numpy==1.24.4"],
        ),
        (["mlflow-skinny", "orjson==3.8.14"], ["orjson==3.8.14", "Tracking and serving need orjson>="]),
        (["mlflow-skinny", "pandas==2.2.0", "pandas==2.1.0"], ["pandas==2.2.0", "pandas==2.1.0"]),
        (["mlflow-skinny", "asgard-has-no-such-package"], ["There is no package asgard-has-no-such-package"]),
        (["mlflow-skinny", "six==99"], ["no version of six==99"]),
        (
            ["mlflow-skinny", "scikit-learn==0.22"],
            ["scikit-learn==0.22 has no usable wheels", "(Python {newer}, 3.10)"],
        ),
    ],
)
def test_requirements_that_do_not_fit_are_named(
    requirements: list[str], told: list[str], fresh: Settings, tmp_path: Path
) -> None:
    with pytest.raises(RequirementsConflict) as raised:
        environments.resolve(requirements, tmp_path / "project", fresh, ignore)
    assert raised.value.stage == "environment"
    newer = ", ".join(version for version in pythons.SUPPORTED if version in pythons.installed() and version != "3.10")
    for part in told:
        assert part.format(newer=newer) in raised.value.message


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """Calling it points uv at an index that nobody serves, and at an empty cache."""

    def switch() -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://someone:hidden@127.0.0.1:{port}/simple")
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))

    return switch


def test_an_index_out_of_reach_is_not_the_posters_fault(
    no_index: Callable[[], None], fresh: Settings, tmp_path: Path
) -> None:
    no_index()
    with pytest.raises(EnvironmentUnavailable, match="the package index cannot be reached") as raised:
        environments.resolve(SMALL, tmp_path / "project", fresh, ignore)
    assert "hidden" not in f"{raised.value.message} {raised.value.log_tail}"


def test_versions_found_earlier_are_used_while_the_index_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, fresh: Settings, tmp_path: Path
) -> None:
    lock = environments.resolve(SMALL, tmp_path / "project", fresh, ignore)
    monkeypatch.setattr(environments, "FRESH_SECONDS", 0)
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    lines: list[str] = []
    again = environments.resolve(SMALL, tmp_path / "again", fresh, lines.append)
    assert again.digest == lock.digest
    assert any("The versions found earlier are used" in line for line in lines)


def test_resolving_and_installing_have_a_limit_of_time(fresh: Settings, tmp_path: Path) -> None:
    hurried = fresh.model_copy(update={"environment_timeout_seconds": 0.01})
    with pytest.raises(EnvironmentUnavailable, match="ASGARD_ENVIRONMENT_TIMEOUT_SECONDS"):
        environments.resolve(SMALL, tmp_path / "project", hurried, ignore)


def test_a_python_that_is_missing_and_cannot_be_downloaded_gives_way_to_an_older_one(
    monkeypatch: pytest.MonkeyPatch, fresh: Settings, tmp_path: Path
) -> None:
    here = pythons.installed()
    monkeypatch.setattr(pythons, "installed", lambda: {"3.11": here["3.11"]})
    monkeypatch.setattr(pythons, "_download_failures", {})
    monkeypatch.setenv("UV_PYTHON_INSTALL_MIRROR", (tmp_path / "no mirror").as_uri())
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "pythons"))
    lines: list[str] = []
    lock = environments.resolve(SMALL, tmp_path / "project", fresh, lines.append)
    assert lock.python == "3.11"
    assert [line for line in lines if line.startswith("Python 3.13 is not on this machine")]


def test_requirements_that_need_a_python_that_cannot_be_had_say_which(
    monkeypatch: pytest.MonkeyPatch, fresh: Settings, tmp_path: Path
) -> None:
    here = pythons.installed()
    monkeypatch.setattr(pythons, "installed", lambda: {"3.13": here["3.13"]})
    monkeypatch.setattr(pythons, "_download_failures", {})
    monkeypatch.setenv("UV_PYTHON_INSTALL_MIRROR", (tmp_path / "no mirror").as_uri())
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "pythons"))
    with pytest.raises(EnvironmentUnavailable, match=r"need Python 3\.11 or 3\.10, which is not on this machine"):
        environments.resolve(["mlflow-skinny", "scikit-learn==1.3.0"], tmp_path / "project", fresh, ignore)


def test_pyenvs_interpreters_are_found_without_its_shims() -> None:
    found = pythons.installed()
    assert found
    for version, path in found.items():
        assert "shims" not in path.parts
        code = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
        assert subprocess.run([path, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == version
