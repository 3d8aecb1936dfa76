"""A real embedded MLflow, shared by the tests that only talk to one."""

from collections.abc import Iterator

import pytest

from asgard.platform import mlflow_server
from asgard.platform.tracking import Tracking
from asgard.settings import Settings


@pytest.fixture(scope="session")
def mlflow_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("tracking"), mlflow_tracking_uri=None)


@pytest.fixture(scope="session")
def tracking(mlflow_settings: Settings) -> Iterator[Tracking]:
    with mlflow_server.running(mlflow_settings) as running:
        yield running
