"""The feature store's probe: a real Feast repository, really read."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from asgard.platform.features import FeastProbe
from asgard.settings import Settings

from ..waiting import until
from .tracking_fixtures import processes_with

CHANGE_SECONDS = 15
"""Within which a change must be seen."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("data folder"))


@pytest.fixture(scope="module")
def probe(settings: Settings) -> Iterator[FeastProbe]:
    started = FeastProbe(settings)
    started.start()
    try:
        until(lambda: started.reading is not None)
        yield started
    finally:
        started.stop()
    assert not probes(settings)


def probes(settings: Settings) -> list[psutil.Process]:
    return processes_with(settings.feast_repo_path)


def registry(settings: Settings) -> Path:
    return settings.feast_repo_path / "data" / "registry.db"


def error(probe: FeastProbe) -> str | None:
    assert probe.reading is not None
    return probe.reading.error


def test_what_feast_leaves_among_the_temporary_files_goes_with_the_next_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    settings = Settings(data_dir=tmp_path / "data")
    left = []
    for _ in range(2):
        probe = FeastProbe(settings)
        probe.start()
        try:
            until(partial(getattr, probe, "reading"))
        finally:
            probe.stop()
        left.append({path.name for path in (tmp_path / "data/tmp/feast").iterdir()})
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not left[0] & left[1]


def test_neither_feast_nor_mlflow_is_imported_with_the_platform() -> None:
    code = (
        "import sys\n"
        "from asgard.platform import artifacts, features, mlflow_server, registry, runs, status\n"
        "assert not {'feast', 'mlflow', 'pandas'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_repository_is_made_that_feast_itself_can_use(settings: Settings, probe: FeastProbe) -> None:
    assert error(probe) is None
    code = (
        "import sys\n"
        "from feast import Entity, FeatureStore, ValueType\n"
        "FeatureStore(sys.argv[1]).apply([Entity(name='flower', value_type=ValueType.INT64)])\n"
        "assert [entity.name for entity in FeatureStore(sys.argv[1]).list_entities()] == ['flower']\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, settings.feast_repo_path], check=True)


@pytest.mark.parametrize("content", [b"no registry at all" * 20, b"", None], ids=["garbage", "empty", "gone"])
def test_a_broken_registry_is_seen_and_its_return_too(
    settings: Settings, probe: FeastProbe, content: bytes | None
) -> None:
    until(lambda: error(probe) is None)
    good = registry(settings).read_bytes()
    if content is None:
        registry(settings).unlink()
    else:
        registry(settings).write_bytes(content)
    until(lambda: error(probe) is not None, seconds=CHANGE_SECONDS)
    registry(settings).write_bytes(good)
    until(lambda: error(probe) is None, seconds=CHANGE_SECONDS)


def test_broken_settings_are_seen_and_their_return_too(settings: Settings, probe: FeastProbe) -> None:
    until(lambda: error(probe) is None)
    path = settings.feast_repo_path / "feature_store.yaml"
    good = path.read_text()
    path.write_text("project: [")
    until(lambda: error(probe) is not None, seconds=CHANGE_SECONDS)
    path.write_text(good)
    until(lambda: error(probe) is None, seconds=CHANGE_SECONDS)


def test_a_probe_that_hangs_is_seen_and_replaced(settings: Settings, probe: FeastProbe) -> None:
    until(lambda: error(probe) is None)
    [hanging] = probes(settings)
    hanging.suspend()
    until(lambda: error(probe) is not None, seconds=CHANGE_SECONDS)
    assert "does not answer" in str(error(probe))
    until(lambda: error(probe) is None)
    [replacement] = probes(settings)
    assert replacement.pid != hanging.pid


def test_a_repository_that_is_set_is_used_as_it_is(tmp_path: Path, probe: FeastProbe, settings: Settings) -> None:
    repository = tmp_path / "theirs"
    (repository / "elsewhere").mkdir(parents=True)
    (repository / "feature_store.yaml").write_text(
        "project: theirs\nregistry: elsewhere/registry.db\nprovider: local\nentity_key_serialization_version: 3\n"
        "online_store:\n  type: sqlite\n  path: elsewhere/online.db\n"
    )
    (repository / "elsewhere" / "registry.db").write_bytes(registry(settings).read_bytes())
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    other = FeastProbe(Settings(data_dir=tmp_path / "data", feast_repo_path=repository))
    other.start()
    try:
        until(lambda: other.reading is not None)
        assert error(other) is None
    finally:
        other.stop()
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before


def test_it_sees_what_a_repository_may_need_and_none_of_the_platforms_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASGARD_API_TOKEN", "not-for-feast")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "not-for-feast")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not-for-feast")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for-a-registry-in-s3")
    settings = Settings(data_dir=tmp_path)
    probe = FeastProbe(settings)
    probe.start()
    try:
        until(lambda: probes(settings))
        [process] = probes(settings)
        environment = process.environ()
    finally:
        probe.stop()
    assert "not-for-feast" not in environment.values()
    assert environment["AWS_SECRET_ACCESS_KEY"] == "for-a-registry-in-s3"
    assert not probes(settings)


def test_it_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    starter = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from asgard.platform.features import FeastProbe\n"
        "from asgard.settings import Settings\n"
        "FeastProbe(Settings(data_dir=Path(sys.argv[1]))).start()\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", starter, str(tmp_path)]) as api:
        until(lambda: probes(settings))
        os.kill(api.pid, signal.SIGKILL)
    until(lambda: not probes(settings))
