from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from asgard import logs
from asgard.cli import app
from asgard.settings import Settings

from ..api.fake_platform import FakePlatform, Running, running

Run = Callable[..., Result]


@pytest.fixture(autouse=True, scope="session")
def _logging() -> None:
    logs.configure("info", "json")


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakePlatform, Running]]:
    platform = FakePlatform()
    with running(Settings(data_dir=tmp_path_factory.mktemp("data"), api_token=None), platform) as server:
        yield platform, server


@pytest.fixture
def platform(_shared: tuple[FakePlatform, Running]) -> FakePlatform:
    _shared[0].reset()
    return _shared[0]


@pytest.fixture
def server(_shared: tuple[FakePlatform, Running], platform: FakePlatform) -> Running:
    """The API over `platform`, a real server."""
    return _shared[1]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of commands that are run in this process."""
    for name in ("ASGARD_API_TOKEN", "MLFLOW_TRACKING_URI", "ASGARD_STACKS_DIR", "ASGARD_BACKEND_URL"):
        monkeypatch.delenv(name, raising=False)
    return {"ASGARD_DATA_DIR": str(tmp_path / "data"), "ASGARD_CACHE_DIR": str(tmp_path / "cache")}


@pytest.fixture
def run(server: Running, environment: dict[str, str]) -> Run:
    """Runs a command against `server`, in this process."""

    def run(*arguments: str, **variables: str) -> Result:
        result = CliRunner().invoke(app, arguments, env={**environment, "ASGARD_URL": server.url, **variables})
        logs.configure("info", "json")  # some commands let it go to what was the standard error meanwhile
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
