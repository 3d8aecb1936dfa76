"""What tests of several folders need: a cache folder, the Pulumi CLI, and a PATH with its language host."""

import os
import signal
from pathlib import Path

import pytest
from platformdirs import user_cache_path
from pulumi.automation import PulumiCommand

from asgard.platform import engine_install
from asgard.settings import Settings

from .standins import path_with_cli

pytest_plugins = ["tests.cluster.fixtures", "tests.standins.aws.fixtures"]

# Longest first, as the last one to begin is the one that the others wait for.
_LONGEST = ("e2e/test_failures.py", "e2e", "serving/test_parent.py", "standins", "platform", "bench", "serving")
_HERE = Path(__file__).parent


def pytest_configure() -> None:
    """Where a shell started this in the background, SIGINT is ignored, here and in all that tests start.

    The cluster and the CLI are Go programs, and memory is not what this machine lacks.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("GOGC", "400")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share the tests out to the workers of `make test`: a file goes to one, and so does all that needs the cluster."""
    on_cluster = {item.path for item in items if "cluster" in getattr(item, "fixturenames", ())}

    def rank(item: pytest.Item) -> int:
        if item.path in on_cluster:
            return -1
        name = item.path.relative_to(_HERE).as_posix()
        return next((index for index, prefix in enumerate(_LONGEST) if name.startswith(prefix)), len(_LONGEST))

    for item in items:
        item.add_marker(pytest.mark.xdist_group("cluster" if item.path in on_cluster else item.location[0]))
    items.sort(key=rank)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the caller's settings nor what an earlier test's MLflow has left in the environment."""
    for name in list(os.environ):
        if name.startswith(("ASGARD_", "MLFLOW_TRACKING_")) and name not in ("ASGARD_TEST_CACHE", "ASGARD_CACHE_DIR"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def test_cache() -> Path:
    """Folder of what tests may keep from run to run; `ASGARD_TEST_CACHE`, else in the user's cache folder."""
    folder = Path(os.environ.get("ASGARD_TEST_CACHE") or user_cache_path("asgard-tests"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def pulumi_command() -> PulumiCommand:
    """The CLI that `make setup` has found or installed."""
    return engine_install.find_or_install(Settings(), lambda line: print(line, flush=True))  # noqa: T201


@pytest.fixture(scope="session")
def pulumi_path(pulumi_command: PulumiCommand, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH on which that CLI is found, with a Python language host and the provider `asgard`."""
    return path_with_cli(Path(pulumi_command.command), tmp_path_factory.mktemp("language-host"))
