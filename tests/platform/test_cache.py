"""The cache folder loses what nobody wants any more, and nothing else."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from asgard.platform import cache, environments
from asgard.platform.environments import Environment, Lock
from asgard.platform.images import blobs
from asgard.settings import Settings

LONG_AGO = time.time() - cache.UNUSED_SECONDS - 60


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Lock:
    folder = tmp_path_factory.mktemp("lock")
    return environments.resolve(["mlflow-skinny"], folder / "project", Settings(cache_dir=folder / "cache"), print)


@pytest.fixture
def unused(lock: Lock, settings: Settings) -> Environment:
    """An environment that was last wanted long ago."""
    environment = environments.ensure(lock, settings, print)
    os.utime(environment.path / ".ready", (LONG_AGO, LONG_AGO))
    return environment


def test_an_unused_environment_goes_and_comes_back_when_it_is_wanted(
    unused: Environment, lock: Lock, settings: Settings
) -> None:
    cache.prune(settings.cache_dir)
    assert not unused.path.exists()
    again = environments.ensure(lock, settings, print)
    assert again == unused
    subprocess.run([again.python, "-c", "import mlflow"], check=True)


def test_an_environment_that_was_wanted_lately_stays(unused: Environment, lock: Lock, settings: Settings) -> None:
    environments.ensure(lock, settings, print)
    cache.prune(settings.cache_dir)
    assert unused.python.exists()


def test_an_environment_that_a_process_runs_from_stays(unused: Environment, settings: Settings) -> None:
    with subprocess.Popen([unused.python, "-c", "input()"], stdin=subprocess.PIPE) as process:
        cache.prune(settings.cache_dir)
        assert unused.python.exists()
        process.communicate()
    cache.prune(settings.cache_dir)
    assert not unused.path.exists()


def test_an_environment_that_was_never_finished_goes(settings: Settings) -> None:
    half = settings.cache_dir / "environments" / "half"
    half.mkdir(parents=True)
    cache.prune(settings.cache_dir)
    assert half.exists()  # somebody may be at it
    os.utime(half, (LONG_AGO, LONG_AGO))
    cache.prune(settings.cache_dir)
    assert not half.exists()


def test_parts_of_images_go_when_they_are_unused(settings: Settings) -> None:
    used, unused = (blobs.add(settings.cache_dir, content) for content in (b"used", b"unused"))
    bases = [settings.cache_dir / "images" / "bases" / digest.removeprefix("sha256:") for digest in (used, unused)]
    for base in bases:
        (base / "root").mkdir(parents=True)
    for digest in (used, unused):
        os.utime(blobs.path(settings.cache_dir, digest), (LONG_AGO, LONG_AGO))
    assert blobs.has(settings.cache_dir, used)
    cache.prune(settings.cache_dir)
    assert blobs.has(settings.cache_dir, used)
    assert not blobs.has(settings.cache_dir, unused)
    assert [base.exists() for base in bases] == [True, False]
