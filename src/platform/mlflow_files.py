"""Where the embedded MLflow keeps things, and on which port it is. `folder` is `mlflow` in the data folder.

mlflow.db     database
artifacts/    what `mlflow-artifacts:/` is on this disk
port          the port, kept so that the address lasts
server.lock   held by the process that serves; in it, the port on which it does
"""

import fcntl
from pathlib import Path

import structlog

from . import files, ports

_log = structlog.get_logger("asgard.mlflow")


def database(folder: Path) -> Path:
    """The sqlite file."""
    return folder / "mlflow.db"


def artifacts(folder: Path) -> Path:
    """What `mlflow-artifacts:/` is on this disk."""
    return folder / "artifacts"


def lock(folder: Path) -> Path:
    """Locked with `flock` by the process that serves the folder."""
    return folder / "server.lock"


def port(folder: Path) -> int | None:
    """The port that was kept for the folder; None: there is none yet."""
    try:
        return int((folder / "port").read_text())
    except (FileNotFoundError, ValueError):
        return None


def free_port(folder: Path) -> int:
    """The folder's port while its server does not run; a new one where there is none or somebody has taken it."""
    kept = port(folder)
    if kept is not None and ports.is_free(kept):
        return kept
    free = ports.allocate(())
    if kept is not None:
        _log.warning("MLflow's port is taken by another program; it moves", port=kept, to=free)
    folder.mkdir(parents=True, exist_ok=True)
    files.replace(folder / "port", str(free))
    return free


def serving_port(folder: Path) -> int | None:
    """The port of the process that serves this very folder; None: there is none, or it has none yet."""
    try:
        with lock(folder).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except FileNotFoundError:
        pass
    return None
