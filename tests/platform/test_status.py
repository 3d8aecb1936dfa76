"""The status: read at once, and true soon after anything changes."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from asgard.platform import mlflow_files, status
from asgard.platform.features import FeastProbe
from asgard.platform.mlflow_server import EmbeddedMlflow
from asgard.platform.status import StatusMonitor
from asgard.platform.tracking import Tracking
from asgard.settings import Settings

from ..waiting import until
from .tracking_fixtures import processes_with

CHANGE_SECONDS = 15
"""Within which a change must be seen."""


@contextmanager
def monitored(settings: Settings, service: Callable[[], str | None] = lambda: None) -> Iterator[StatusMonitor]:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    monitor = StatusMonitor(settings, FeastProbe(settings), service)
    monitor.start()
    try:
        yield monitor
    finally:
        monitor.stop()


@pytest.fixture
def set_tracking(tracking: Tracking, tmp_path: Path) -> Settings:
    """Settings whose MLflow is up already, and not to be started."""
    return Settings(data_dir=tmp_path / "data", mlflow_tracking_uri=tracking.uri)


def test_the_fields_are_those_of_the_answer_and_reading_takes_no_time(set_tracking: Settings) -> None:
    with monitored(set_tracking) as monitor:
        until(lambda: monitor.read().mlflow_status == "healthy")
        until(lambda: monitor.read().deployment_service_ready)
        began = time.perf_counter()
        for _ in range(1000):
            found = monitor.read()
        assert (time.perf_counter() - began) / 1000 < 0.001
    fields = asdict(found)
    assert abs(datetime.now(UTC) - fields.pop("timestamp")) < timedelta(seconds=30)
    assert fields == {
        "mlflow_status": "healthy",
        "mlflow_uri": set_tracking.mlflow_tracking_uri,
        "feast_status": "starting",
        "feast_repo_path": str(set_tracking.feast_repo_path),
        "deployment_service_status": "healthy",
        "deployment_service_ready": True,
    }


def test_an_embedded_mlflow_is_starting_then_healthy_and_every_change_is_seen(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", mlflow_tracking_uri=None)
    folder = settings.data_dir / "mlflow"
    with monitored(settings) as monitor:
        server = EmbeddedMlflow(settings)

        def seen(word: str) -> Callable[[], bool]:
            return lambda: monitor.read().mlflow_status == word

        assert seen("starting")()
        server.start()
        try:
            until(seen("healthy"))
            assert monitor.read().mlflow_uri == f"http://127.0.0.1:{mlflow_files.serving_port(folder)}"

            [process] = processes_with(folder)
            process.suspend()
            until(seen("unhealthy"), seconds=CHANGE_SECONDS)
            process.resume()
            until(seen("healthy"), seconds=CHANGE_SECONDS)

            database = mlflow_files.database(folder)
            shutil.copyfile(database, tmp_path / "good.db")
            database.write_bytes(b"no database" * 100_000)
            until(seen("unhealthy"), seconds=CHANGE_SECONDS)
            shutil.copyfile(tmp_path / "good.db", database)
            until(seen("healthy"), seconds=CHANGE_SECONDS)

            database.rename(tmp_path / "gone.db")
            until(seen("unhealthy"), seconds=CHANGE_SECONDS)
            (tmp_path / "gone.db").rename(database)
            until(seen("healthy"), seconds=CHANGE_SECONDS)
        finally:
            server.stop()
        until(seen("unhealthy"), seconds=CHANGE_SECONDS)


def test_a_set_mlflow_that_is_not_there_is_unhealthy_at_once_and_the_log_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")  # so that they are again as they were
    settings = Settings(data_dir=tmp_path, mlflow_tracking_uri="http://user:secret@127.0.0.1:9")
    with structlog.testing.capture_logs() as logs, monitored(settings) as monitor:
        until(lambda: monitor.read().mlflow_status == "unhealthy")
        assert monitor.read().mlflow_uri == "http://127.0.0.1:9"
        until(lambda: reasons(logs, "MLflow"))
    [reason] = reasons(logs, "MLflow")
    assert "127.0.0.1:9" in reason
    assert "secret" not in str(logs)


def test_feast_is_what_its_probe_found_last(set_tracking: Settings) -> None:
    probe = FeastProbe(set_tracking)
    set_tracking.data_dir.mkdir()
    monitor = StatusMonitor(set_tracking, probe, lambda: None)
    monitor.start()
    probe.start()
    try:
        assert monitor.read().feast_status == "starting"
        until(lambda: monitor.read().feast_status == "healthy")
        registry = set_tracking.feast_repo_path / "data" / "registry.db"
        good = registry.read_bytes()
        registry.write_bytes(b"broken" * 50)
        until(lambda: monitor.read().feast_status == "unhealthy", seconds=CHANGE_SECONDS)
        registry.write_bytes(good)
        until(lambda: monitor.read().feast_status == "healthy", seconds=CHANGE_SECONDS)
    finally:
        probe.stop()
        monitor.stop()


def test_the_deployment_service_is_what_its_check_says(set_tracking: Settings) -> None:
    trouble: list[str | None] = ["starting"]
    with structlog.testing.capture_logs() as logs, monitored(set_tracking, lambda: trouble[-1]) as monitor:
        for said, word in ((None, "healthy"), ("no Pulumi CLI", "unhealthy"), (None, "healthy")):
            trouble.append(said)
            until(lambda word=word: monitor.read().deployment_service_status == word, seconds=CHANGE_SECONDS)  # type: ignore[misc]
            assert monitor.read().deployment_service_ready == (word == "healthy")
    assert reasons(logs, "the deployment service") == ["no Pulumi CLI"]


def test_a_check_that_raises_or_hangs_is_unhealthy(set_tracking: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "STALE_SECONDS", 3.0)
    monkeypatch.setattr(status, "INTERVAL_SECONDS", 1.0)
    answers: list[Callable[[], str | None]] = [lambda: None]
    hanging, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        go_on.wait(60)

    def refuse() -> None:
        raise RuntimeError("broken")

    with monitored(set_tracking, lambda: answers[-1]()) as monitor:

        def word() -> str:
            return monitor.read().deployment_service_status

        until(lambda: word() == "healthy")
        answers.append(refuse)
        until(lambda: word() == "unhealthy", seconds=CHANGE_SECONDS)
        answers.append(lambda: None)
        until(lambda: word() == "healthy", seconds=CHANGE_SECONDS)
        answers.append(hang)
        assert hanging.wait(CHANGE_SECONDS)
        until(lambda: word() == "unhealthy", seconds=CHANGE_SECONDS)
        answers.append(lambda: None)
        go_on.set()
        until(lambda: word() == "healthy", seconds=CHANGE_SECONDS)


def test_a_data_folder_that_cannot_be_written_keeps_deploys_from_working(set_tracking: Settings) -> None:
    with monitored(set_tracking) as monitor:
        until(lambda: monitor.read().deployment_service_ready)
        set_tracking.data_dir.rename(set_tracking.data_dir.with_name("moved"))
        until(lambda: monitor.read().deployment_service_status == "unhealthy", seconds=CHANGE_SECONDS)
        assert not monitor.read().deployment_service_ready


def reasons(logs: Any, component: str) -> list[str]:
    return [entry["reason"] for entry in list(logs) if entry.get("component") == component and "reason" in entry]
