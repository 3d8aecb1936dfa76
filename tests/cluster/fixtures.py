"""The fixtures `prepared` and `cluster`, for every folder of tests: named once, in tests/conftest.py."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import harness
from .harness import Prepared
from .model import Cluster


@pytest.fixture(scope="session")
def prepared(test_cache: Path) -> Prepared:
    """Debian's programs and Kubernetes' own. Who has no root on a Debian skips what needs them; a CI may not."""
    if reason := harness.unavailable():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return harness.prepare(test_cache, _say)


@pytest.fixture(scope="session")
def cluster(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory, test_cache: Path) -> Iterator[Cluster]:
    """A real cluster of one node, brought up once for the whole run and taken away after it."""
    folder = tmp_path_factory.mktemp("cluster")
    try:
        yield harness.start(folder, test_cache, for_process=os.getpid(), on_log=_say)
    finally:
        harness.stop(folder)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201
