"""How the platform is: found out in the background, so that reading it is instant."""

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import structlog

from ..settings import Settings
from . import mlflow_server
from .features import FeastProbe

Health = Literal["starting", "healthy", "unhealthy"]
Check = Callable[[], str | None]
"""Gives why something is not healthy, in one line, or "starting"; None: it is."""

INTERVAL_SECONDS: Final = 4.0
UNHEALTHY_INTERVAL_SECONDS: Final = 1.0
STALE_SECONDS: Final = 10.0
"""A check that takes longer is an answer too: unhealthy."""
_log = structlog.get_logger("asgard.status")


@dataclass(frozen=True)
class PlatformStatus:
    """The answer of `GET /mlops/status`; `timestamp` is UTC."""

    mlflow_status: Health
    mlflow_uri: str
    feast_status: Health
    feast_repo_path: str
    deployment_service_status: Health
    deployment_service_ready: bool
    timestamp: datetime


class StatusMonitor:
    """Checks MLflow, Feast and the deployment service between `start` and `stop`.

    `deployment_service` says what keeps deploys from working; that the data folder can be written is checked here.
    """

    def __init__(self, settings: Settings, feast: FeastProbe, deployment_service: Check) -> None:
        self._settings = settings
        self._mlflow_uri = mlflow_server.tracking(settings).uri
        self._began = time.monotonic()
        self._mlflow_was_up = settings.mlflow_tracking_uri is not None
        self._mlflow = _Watched("MLflow", self._check_mlflow)
        self._feast = _Watched("Feast", lambda: _feast_trouble(feast))
        self._deployments = _Watched("the deployment service", lambda: _unwritable(settings) or deployment_service())

    def start(self) -> None:
        """Begin to check; until the first answers all is starting."""
        for watched in (self._mlflow, self._feast, self._deployments):
            watched.start()

    def stop(self) -> None:
        """Check no more. A check that hangs is not waited for."""
        for watched in (self._mlflow, self._feast, self._deployments):
            watched.stop()

    def read(self) -> PlatformStatus:
        """What was found last; at once."""
        deployments = self._deployments.health()
        return PlatformStatus(
            mlflow_status=self._mlflow.health(),
            mlflow_uri=self._mlflow_uri,
            feast_status=self._feast.health(),
            feast_repo_path=str(self._settings.feast_repo_path),
            deployment_service_status=deployments,
            deployment_service_ready=deployments == "healthy",
            timestamp=datetime.now(UTC),
        )

    def _check_mlflow(self) -> str | None:
        # The embedded server moves when another program has taken its port.
        self._mlflow_uri = mlflow_server.tracking(self._settings).uri
        trouble = mlflow_server.check(self._settings)
        self._mlflow_was_up = self._mlflow_was_up or trouble is None
        if not self._mlflow_was_up and time.monotonic() - self._began < mlflow_server.START_SECONDS:
            return "starting"
        return trouble


class _Watched:
    """One component, checked again and again in a thread of its own; says in the log when it changes."""

    def __init__(self, name: str, check: Check) -> None:
        self._name = name
        self._check = check
        self._trouble: str | None = "starting"
        self._answered = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"check {name}", daemon=True)

    def start(self) -> None:
        self._answered = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def health(self) -> Health:
        if self._trouble == "starting":
            return "starting"
        stale = time.monotonic() - self._answered > STALE_SECONDS
        return "unhealthy" if stale or self._trouble is not None else "healthy"

    def _watch(self) -> None:
        while True:
            try:
                trouble = self._check()
            except Exception as error:
                trouble = f"{type(error).__name__}: {error}"
            if trouble != self._trouble:
                _tell(self._name, trouble)
            self._trouble, self._answered = trouble, time.monotonic()
            if self._stopping.wait(INTERVAL_SECONDS if trouble is None else UNHEALTHY_INTERVAL_SECONDS):
                return


def _tell(name: str, trouble: str | None) -> None:
    if trouble is None:
        _log.info("healthy", component=name)
    else:
        _log.warning("not healthy", component=name, reason=trouble)


def _feast_trouble(feast: FeastProbe) -> str | None:
    reading = feast.reading
    return "starting" if reading is None else reading.error


def _unwritable(settings: Settings) -> str | None:
    """Why the data folder cannot be written, found by doing it."""
    try:
        with tempfile.TemporaryFile(dir=settings.data_dir) as file:
            file.write(b"asgard")
            file.flush()
    except OSError as error:
        return f"the data folder cannot be written: {error}"
    return None
