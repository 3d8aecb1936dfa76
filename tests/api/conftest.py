from collections.abc import Iterator

import pytest

from asgard import logs
from asgard.settings import Settings

from .fake_platform import FakePlatform, Running, running


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
    """A server over `platform` that a module's tests share; a test that ends its server starts one of its own."""
    return _shared[1]
