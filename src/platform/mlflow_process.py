"""The embedded MLflow server's own process: `python -m asgard.platform.mlflow_process FOLDER LOG`.

Whoever holds the lock of the folder serves it; the others wait for their turn. So the API and any number of commands
may each start one, and the database has one server for as long as anybody needs it.
"""

import fcntl
import os
import shutil
import socket
import sqlite3
import sys
import threading
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Final

from . import children, imports, mlflow_files
from .ports import HOST

BACKUPS_KEPT: Final = 3
LOG_BYTES: Final = 5 * 1024**2
_LOG_INTERVAL_SECONDS: Final = 10.0


def environment(folder: Path) -> dict[str, str]:
    """What MLflow's server reads at import: https://github.com/mlflow/mlflow/blob/master/mlflow/server/constants.py.

    `mlflow server` passes the same to its workers. Started without it, MLflow is one process and up in half the time.
    """
    database = f"sqlite:///{mlflow_files.database(folder)}"
    return {
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_REGISTRY_STORE": database,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(mlflow_files.artifacts(folder)),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def main() -> None:
    """Serve until the parent ends or a SIGTERM comes."""
    folder, log = Path(sys.argv[1]), Path(sys.argv[2])
    children.end_with_parent()
    lock = mlflow_files.lock(folder).open("a+")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.truncate(0)
    threading.Thread(target=_keep_bound, args=[log], daemon=True).start()
    listener = _bind(folder)
    _write(lock, str(listener.getsockname()[1]))
    os.environ.update(environment(folder))
    migrate(mlflow_files.database(folder))
    _serve(listener)


def _serve(listener: socket.socket) -> None:
    with imports.uncollected():
        import uvicorn
        from mlflow.server import handlers
        from mlflow.server.fastapi_app import app

    # Opened before the first request needs them; creates the tables of a new database.
    handlers._get_tracking_store()
    handlers._get_model_registry_store()
    uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)).run(sockets=[listener])


def migrate(database: Path) -> None:
    """Bring the database's schema to the installed MLflow's, a copy kept beside it; on failure the copy is put back."""
    if not database.exists():
        return
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine(f"sqlite:///{database}")  # type: ignore[no-untyped-call]
    try:
        found = utils._get_schema_version(engine)  # type: ignore[no-untyped-call]
        wanted = utils._get_latest_schema_revision()  # type: ignore[no-untyped-call]
        if found in (None, wanted):
            return
        backup = back_up(database)
        print(f"MLflow's database is of schema {found}, not {wanted}: copied to {backup.name}, migrating", flush=True)  # noqa: T201
        try:
            utils._upgrade_db(engine)  # type: ignore[no-untyped-call]
        except BaseException:
            engine.dispose()
            backup.replace(database)
            raise
    finally:
        engine.dispose()


def back_up(database: Path) -> Path:
    """Copy the database beside itself, named after the MLflow version that comes and the time; keep the newest few."""
    now = datetime.now(UTC)
    backup = database.with_name(f"{database.name}.before-{version('mlflow')}-{now:%Y%m%dT%H%M%S%fZ}")
    source, target = sqlite3.connect(database), sqlite3.connect(backup)
    try:
        source.backup(target)
    finally:
        target.close()
        source.close()
    older = sorted(database.parent.glob(f"{database.name}.before-*"), key=lambda path: path.stat().st_mtime)
    for path in older[:-BACKUPS_KEPT]:
        path.unlink()
    return backup


def _bind(folder: Path) -> socket.socket:
    """The folder's port, or another one if that is taken. Not yet listening, so that early clients are refused."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, mlflow_files.free_port(folder)))
    return listener


def _write(lock: IO[str], text: str) -> None:
    lock.write(text)
    lock.flush()


def bound(log: Path) -> None:
    """Where the log, to which all output of this process is appended, has grown too long, begin it anew; keep one."""
    if log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)


def _keep_bound(log: Path) -> None:
    while True:
        bound(log)
        time.sleep(_LOG_INTERVAL_SECONDS)


if __name__ == "__main__":
    main()
