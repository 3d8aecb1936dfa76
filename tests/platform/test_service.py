"""The platform as the API runs it, where its parts fail it."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgard.errors import TrackingUnavailable
from asgard.platform.service import Platform
from asgard.settings import Settings

from ..waiting import until


@pytest.fixture
def hung() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_an_mlflow_that_hangs_does_not_hold_up_whoever_asks_for_models(hung: str, tmp_path: Path) -> None:
    platform = Platform(Settings(data_dir=tmp_path, mlflow_tracking_uri=hung))
    platform.start()
    try:
        until(lambda: platform.status().mlflow_status == "unhealthy")
        for ask in (platform.models, lambda: platform.model("iris")):
            began = time.monotonic()
            with pytest.raises(TrackingUnavailable, match="no answer within 5 s"):
                ask()
            assert time.monotonic() - began < 10
    finally:
        platform.stop()
