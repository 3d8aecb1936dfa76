"""The fixture `cluster`, for every folder of tests: named once, in tests/conftest.py."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import harness
from .model import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, test_cache: Path) -> Iterator[Cluster]:
    """A real cluster of one node, brought up once for the whole run and taken away after it."""
    folder = tmp_path_factory.mktemp("cluster")
    try:
        yield harness.start(
            folder,
            test_cache,
            for_process=os.getpid(),
            on_log=lambda line: print(line, flush=True),  # noqa: T201
        )
    finally:
        harness.stop(folder)
