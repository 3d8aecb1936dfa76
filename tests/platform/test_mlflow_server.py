"""The embedded MLflow: alive, at one address, alone on its database, never left behind; and another's, checked."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from asgard.errors import AsgardError, TrackingUnavailable
from asgard.platform import mlflow_files, mlflow_process, mlflow_server
from asgard.platform.mlflow_server import EmbeddedMlflow
from asgard.platform.tracking import Tracking, connect
from asgard.settings import Settings

from ..waiting import until
from .tracking_fixtures import DEADLINE_SECONDS, processes_with


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data folder", mlflow_tracking_uri=None)


@pytest.fixture
def server(settings: Settings) -> Iterator[EmbeddedMlflow]:
    embedded = EmbeddedMlflow(settings)
    embedded.start()
    try:
        yield embedded
    finally:
        embedded.stop()


def folder(settings: Settings) -> Path:
    return settings.data_dir / "mlflow"


def servers(settings: Settings) -> list[psutil.Process]:
    return processes_with(folder(settings))


def test_the_interface_is_browsable_where_the_address_says(tracking: Tracking) -> None:
    page = httpx.get(tracking.uri)
    assert page.is_success
    assert "<title>MLflow</title>" in page.text


def test_artifacts_go_through_the_server_into_the_data_folder(mlflow_settings: Settings, tracking: Tracking) -> None:
    client = connect(tracking.uri)
    run = client.create_run("0")
    client.log_text(run.info.run_id, "hello", "note.txt")
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    [stored] = (mlflow_settings.data_dir / "mlflow" / "artifacts").glob(f"**/{run.info.run_id}/artifacts/note.txt")
    assert stored.read_text() == "hello"


def test_mlflow_reads_its_settings_under_the_names_that_are_set(tmp_path: Path) -> None:
    from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY, MLFLOW_SERVER_ENABLE_JOB_EXECUTION
    from mlflow.server import constants

    assert set(mlflow_process.environment(tmp_path)) == {
        constants.BACKEND_STORE_URI_ENV_VAR,
        constants.REGISTRY_STORE_URI_ENV_VAR,
        constants.SERVE_ARTIFACTS_ENV_VAR,
        constants.ARTIFACTS_DESTINATION_ENV_VAR,
        constants.ARTIFACT_ROOT_ENV_VAR,
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION.name,
        MLFLOW_DISABLE_TELEMETRY.name,
    }


def test_it_is_one_process_that_sees_no_secret_and_a_killed_one_comes_back_where_it_was(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASGARD_API_TOKEN", "not-for-mlflow")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-for-mlflow")
    server = EmbeddedMlflow(settings)
    server.start()
    try:
        uri = mlflow_server.tracking(settings).uri
        server.wait(DEADLINE_SECONDS)
        [process] = servers(settings)
        assert not process.children()
        assert "not-for-mlflow" not in Path(f"/proc/{process.pid}/environ").read_text()
        assert os.getsid(process.pid) == process.pid

        process.kill()
        until(lambda: not process.is_running())
        server.wait(DEADLINE_SECONDS)
        assert mlflow_server.check(settings) is None
        assert mlflow_server.tracking(settings).uri == uri
    finally:
        server.stop()
    assert not servers(settings)
    assert mlflow_server.check(settings) == "no embedded MLflow server runs"


def test_a_command_uses_the_server_that_runs_and_takes_over_when_it_ends(
    settings: Settings, server: EmbeddedMlflow
) -> None:
    server.wait(DEADLINE_SECONDS)
    port = mlflow_files.serving_port(folder(settings))
    with mlflow_server.running(settings) as tracking:
        experiment = connect(tracking.uri).create_experiment("theirs")
        assert mlflow_files.serving_port(folder(settings)) == port
        server.stop()
        until(lambda: mlflow_server.answers(settings))
        assert tracking.uri == f"http://127.0.0.1:{port}"
        assert connect(tracking.uri).get_experiment(experiment).name == "theirs"
    assert not servers(settings)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_process_that_started_it(settings: Settings, how: signal.Signals) -> None:
    starter = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from asgard.platform.mlflow_server import EmbeddedMlflow\n"
        "from asgard.settings import Settings\n"
        "EmbeddedMlflow(Settings(data_dir=Path(sys.argv[1]), mlflow_tracking_uri=None)).start()\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", starter, str(settings.data_dir)]) as api:
        until(lambda: mlflow_files.serving_port(folder(settings)))
        api.send_signal(how)
    until(lambda: not servers(settings))
    # A process that ends gives up its memory, and with it its name, before its files.
    until(lambda: mlflow_files.serving_port(folder(settings)) is None)


def test_the_port_is_kept_unless_another_program_has_it(settings: Settings) -> None:
    first = mlflow_server.tracking(settings)
    assert mlflow_server.tracking(settings) == first
    with closing(socket.create_server(("127.0.0.1", int(first.uri.rpartition(":")[2])))):
        moved = mlflow_server.tracking(settings)
    assert moved.uri != first.uri
    assert mlflow_server.tracking(settings) == moved


def test_another_program_on_the_port_does_not_pass_for_mlflow(settings: Settings) -> None:
    port = int(mlflow_server.tracking(settings).uri.rpartition(":")[2])
    with closing(socket.create_server(("127.0.0.1", port))):
        assert not mlflow_server.answers(settings)


def test_a_server_that_cannot_start_is_reported_with_where_to_look(settings: Settings) -> None:
    folder(settings).mkdir(parents=True)
    mlflow_files.database(folder(settings)).write_bytes(b"no database" * 1000)
    server = EmbeddedMlflow(settings)
    server.start()
    try:
        with pytest.raises(TrackingUnavailable, match=r"mlflow\.log says why"):
            server.wait(1)
    finally:
        server.stop()
    assert not servers(settings)


def test_an_older_database_is_copied_then_migrated(tmp_path: Path) -> None:
    database = older_database(tmp_path)
    old = revision(database)
    mlflow_process.migrate(database)
    assert revision(database) == newest_revision() != old
    [backup] = tmp_path.glob("mlflow.db.before-*")
    assert revision(backup) == old
    mlflow_process.migrate(database)
    assert list(tmp_path.glob("mlflow.db.before-*")) == [backup]


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    database = older_database(tmp_path)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from the future'")
    before = dump(database)
    with pytest.raises(Exception, match="from the future"):
        mlflow_process.migrate(database)
    assert dump(database) == before
    assert not list(tmp_path.glob("mlflow.db.before-*"))


def test_the_newest_three_backups_are_kept(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    sqlite3.connect(database).close()
    made = [mlflow_process.back_up(database) for _ in range(5)]
    assert sorted(tmp_path.glob("mlflow.db.before-*")) == made[2:]


def test_the_log_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "mlflow.log"
    with log.open("ab", buffering=0) as file:
        file.write(b"x" * mlflow_process.LOG_BYTES)
        mlflow_process.bound(log)
        assert log.stat().st_size == mlflow_process.LOG_BYTES
        file.write(b"one too many")
        mlflow_process.bound(log)
        file.write(b"afterwards")
    assert log.read_bytes() == b"afterwards"
    assert (tmp_path / "mlflow.log.1").read_bytes().endswith(b"one too many")


def test_a_server_that_proxies_artifacts_may_be_used(tracking: Tracking) -> None:
    assert mlflow_server.check_external(tracking.uri) is None


def test_a_set_server_is_used_and_none_is_started(tracking: Tracking, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "unused", mlflow_tracking_uri=tracking.uri)
    with mlflow_server.running(settings) as used:
        assert used == Tracking(tracking.uri)
    assert mlflow_server.check(settings) is None
    assert not settings.data_dir.exists()


@pytest.mark.parametrize(
    ("serves_artifacts", "trouble"), [("true", "does not proxy them"), ("false", "mlflow-artifacts")]
)
def test_a_server_that_does_not_proxy_artifacts_may_not(tmp_path: Path, serves_artifacts: str, trouble: str) -> None:
    with foreign_server(tmp_path, serves_artifacts) as uri:
        reason = mlflow_server.check_external(uri)
    assert reason is not None
    assert trouble in reason


def test_a_server_that_cannot_be_reached_is_named_without_its_password() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        reason = mlflow_server.check_external(f"http://user:secret@127.0.0.1:{unused.getsockname()[1]}")
    assert reason is not None
    assert "127.0.0.1" in reason
    assert "secret" not in reason


@contextmanager
def foreign_server(tmp_path: Path, serves_artifacts: str) -> Iterator[str]:
    """An MLflow whose new experiments keep their artifacts in a folder of the server's machine."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        environment = mlflow_process.environment(tmp_path) | {
            "_MLFLOW_SERVER_ARTIFACT_ROOT": str(tmp_path / "elsewhere"),
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": serves_artifacts,
        }
        number = str(listener.fileno())
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--fd", number, "--log-level", "error", "mlflow.server.fastapi_app:app"],
            env=os.environ | environment,
            pass_fds=[listener.fileno()],
            cwd=tmp_path,
        )
        port = listener.getsockname()[1]
    try:
        uri = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{uri}/health", timeout=DEADLINE_SECONDS).is_success
        # The first experiment that is looked for opens the database.
        assert httpx.get(f"{uri}/api/2.0/mlflow/experiments/get?experiment_id=0", timeout=DEADLINE_SECONDS).is_success
        yield uri
    finally:
        server.terminate()
        server.wait()


def older_database(folder: Path) -> Path:
    """A database as an MLflow of some migrations ago left it."""
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    database = folder / "mlflow.db"
    uri = f"sqlite:///{database}"
    config = utils._get_alembic_config(uri)  # type: ignore[no-untyped-call]
    script = ScriptDirectory.from_config(config)
    earlier = [found.revision for found in script.walk_revisions()][5]
    engine = create_engine(uri)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, earlier)
    engine.dispose()
    return database


def newest_revision() -> str:
    from mlflow.store.db import utils

    newest: str = utils._get_latest_schema_revision()  # type: ignore[no-untyped-call]
    return newest


def revision(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        [[found]] = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    return str(found)


def dump(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize("uri", ["./mlruns", "file:///srv/mlruns", "sqlite:///mlflow.db", "localhost:5000"])
def test_an_mlflow_that_is_no_server_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(AsgardError, match=f"MLFLOW_TRACKING_URI is {uri}, no http"):
        mlflow_server.tracking(Settings(data_dir=tmp_path, mlflow_tracking_uri=uri))
