import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asgard.serving import control

from .live import Live, free_port


@pytest.fixture(scope="session")
def make_live(
    tmp_path_factory: pytest.TempPathFactory, pulumi_path: str, test_cache: Path
) -> Iterator[Callable[..., Live]]:
    """Start further APIs, each on a data folder of its own; all are ended with the session."""
    made: list[Live] = []

    def make(**extra: str) -> Live:
        # The folder's name has a space and is long: unix socket paths are short.
        folder = tmp_path_factory.mktemp("data folder") / ("of a platform engineer with a long path " * 2).strip()
        folder.mkdir()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ASGARD_", "MLFLOW_"))}
        environment |= {
            "PATH": pulumi_path,
            "ASGARD_DATA_DIR": str(folder),
            "ASGARD_CACHE_DIR": str(test_cache / "asgard"),
            **extra,
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        live = Live(folder, environment, free_port())
        made.append(live)
        live.start()
        return live

    yield make
    for live in made:
        live.stop()
        for directory in (live.data_dir / "models").glob("*"):
            control.stop(directory)


@pytest.fixture(scope="session")
def live(make_live: Callable[..., Live]) -> Live:
    live = make_live()
    live.ready()
    return live
