"""The platform as the API runs it, where its parts fail it."""

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pulumi import automation as auto

from asgard.errors import InfrastructureFailed, TrackingUnavailable
from asgard.platform import journal, service, serving_tags
from asgard.platform.engine import pulumi_arguments, write_project
from asgard.platform.journal import Journal
from asgard.platform.service import Platform
from asgard.platform.tracking import Tracking
from asgard.settings import Settings

from ..waiting import until
from .test_engine import lock_of, path_of_lock


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


def test_what_a_dead_deploy_left_is_undone_when_whoever_works_on_its_stack_has_ended(
    tracking: Tracking,
    pulumi_command: auto.PulumiCommand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = Settings(data_dir=tmp_path, mlflow_tracking_uri=tracking.uri)
    write_project(settings.stacks_dir)
    command, environment = pulumi_arguments(
        settings, pulumi_command, ["stack", "init", "iris", "--secrets-provider", "passphrase"]
    )
    subprocess.run(command, env=environment, cwd=settings.stacks_dir, check=True)
    lock_of(settings, hostname="another", pid=1, timestamp="2026-01-01T00:00:00Z")
    journal.begin(tmp_path, Journal("0123", "iris", stack_file=None, infrastructure=True))

    def backend_is_away(*_: object) -> None:
        raise InfrastructureFailed("pulumi stack output failed")

    monkeypatch.setattr(service, "PUT_RIGHT_SECONDS", 0.1)
    monkeypatch.setattr(serving_tags, "correct", backend_is_away)
    platform = Platform(settings)
    platform.start()
    try:
        until(lambda: "could not be undone yet" in capsys.readouterr().out)
        assert journal.unfinished(tmp_path) == ["iris"]
        path_of_lock(settings).unlink()
        until(lambda: journal.unfinished(tmp_path) == [])
    finally:
        platform.stop()
