"""The MLflow that this Asgard uses: the embedded server's life, or the one that `MLFLOW_TRACKING_URI` names."""

import functools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import STDOUT, Popen
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import structlog

from ..errors import AsgardError, TrackingUnavailable
from ..settings import Settings
from . import children, mlflow_files, ports
from .tracking import Tracking, connect, taken_apart, without_credentials

START_SECONDS: Final = 120.0
"""Time that an embedded server may take to answer, a migration of its database included."""
CHECK_SECONDS: Final = 5
"""Time that an answer may take before MLflow counts as too slow to be healthy."""
_BACK_OFF_SECONDS: Final = (0.2, 1.0, 5.0, 15.0)
_LIVED_SECONDS: Final = 60.0
"""A server that lived so long is restarted at once."""

_log = structlog.get_logger("asgard.mlflow")


def tracking(settings: Settings) -> Tracking:
    """The MLflow to use and where it is; starts nothing.

    The embedded one's port is chosen here, the first time or when another program has taken it meanwhile.
    Raises AsgardError where `MLFLOW_TRACKING_URI` names a folder or a database.
    """
    if (uri := settings.mlflow_tracking_uri) is not None:
        if urlsplit(uri).scheme not in ("http", "https"):
            raise AsgardError(
                f"MLFLOW_TRACKING_URI is {without_credentials(uri)}, no http:// or https:// address of an MLflow "
                "server. Set it to one, or unset it for the embedded MLflow."
            )
        return Tracking(taken_apart(uri))
    folder = _folder(settings)
    port = mlflow_files.serving_port(folder) or mlflow_files.free_port(folder)
    return Tracking(f"http://{ports.HOST}:{port}", mlflow_files.artifacts(folder))


@contextmanager
def running(settings: Settings) -> Iterator[Tracking]:
    """An MLflow that answers: the API's where the API runs, else an embedded one for as long as the block lasts.

    Raises TrackingUnavailable.
    """
    if settings.mlflow_tracking_uri is not None:
        yield tracking(settings)
        return
    server = EmbeddedMlflow(settings)
    server.start()
    try:
        server.wait(START_SECONDS)
        yield tracking(settings)
    finally:
        server.stop()


class EmbeddedMlflow:
    """Keeps one process of the embedded server alive between `start` and `stop`; it serves, or waits for its turn.

    It ends with this process, however that ends. Whether MLflow answers is `check`'s to say.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = _folder(settings)
        self._log = settings.data_dir / "logs" / "mlflow.log"
        self._stopping = threading.Event()
        self._changing = threading.Lock()
        self._process: Popen[bytes] | None = None
        self._keeper = threading.Thread(target=self._keep, name="mlflow keeper", daemon=True)

    def start(self) -> None:
        """Start the server; does not wait for it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._process = self._spawn()
        self._keeper.start()

    def wait(self, timeout_seconds: float) -> None:
        """Wait until a server answers for the data folder. Raises TrackingUnavailable."""
        deadline = time.monotonic() + timeout_seconds
        while not answers(self._settings):
            if time.monotonic() > deadline:
                raise TrackingUnavailable(f"MLflow did not start within {timeout_seconds:g} s; {self._log} says why.")
            self._stopping.wait(0.05)

    def stop(self) -> None:
        """End the server and wait until it is gone."""
        with self._changing:
            self._stopping.set()
        if self._process is not None:
            children.end(self._process)
            self._keeper.join()

    def _spawn(self) -> Popen[bytes]:
        with self._log.open("ab") as log:
            return children.start(
                "mlflow_process",
                self._folder,
                self._log,
                output=log,
                errors=STDOUT,
                environment=children.bare_environment(),
            )

    def _keep(self) -> None:
        failures = 0
        while self._process is not None:
            began = time.monotonic()
            code = self._process.wait()
            if self._stopping.is_set():
                return
            failures = 0 if time.monotonic() - began > _LIVED_SECONDS else failures
            pause = _BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)]
            _log.error("the MLflow server ended, starting it again", code=code, seconds=pause, log=str(self._log))
            failures += 1
            self._stopping.wait(pause)
            with self._changing:
                if self._stopping.is_set():
                    return
                self._process = self._spawn()


def answers(settings: Settings) -> bool:
    """Whether an embedded server answers for this very data folder."""
    port = mlflow_files.serving_port(_folder(settings))
    if port is None:
        return False
    try:
        return _local().get(f"http://{ports.HOST}:{port}/health").is_success
    except httpx.HTTPError:
        return False


@functools.cache
def _local() -> httpx.Client:
    """Made once: to read the certificates, which nobody needs here, takes longer than to ask."""
    return httpx.Client(timeout=2, trust_env=False)


def check(settings: Settings) -> str | None:
    """Why the MLflow in use is not healthy, in one line; None: it is. Takes a few milliseconds when it is."""
    if settings.mlflow_tracking_uri is not None:
        return check_external(tracking(settings).uri)
    folder = _folder(settings)
    port = mlflow_files.serving_port(folder)
    if port is None:
        return "no embedded MLflow server runs"
    if not mlflow_files.database(folder).is_file():
        return f"{mlflow_files.database(folder)} is not there"
    try:
        _get(f"http://{ports.HOST}:{port}", "/api/2.0/mlflow/registered-models/search", {"max_results": 1})
    except _Refused as refused:
        return str(refused)
    return None


def check_external(uri: str) -> str | None:
    """Why an MLflow that is not ours cannot be used, in one line; None: it answers and proxies artifacts.

    That means that it serves `mlflow-artifacts` and gives new experiments a place there: nobody else needs to reach the
    store, or its credentials. The newest experiment with a place of the server's choosing shows which that is.
    """
    try:
        newest = _post(uri, "/api/2.0/mlflow/experiments/search", _NEWEST_EXPERIMENTS).get("experiments", [])
        _get(uri, "/api/2.0/mlflow-artifacts/artifacts", {"path": "asgard-check"})
    except _Refused as refused:
        return str(refused)
    places = [found["artifact_location"] for found in newest if _is_chosen_by_server(found)]
    if places and not places[0].startswith("mlflow-artifacts:"):
        return (
            f"it keeps artifacts at {without_credentials(places[0])} and does not proxy them: start it with "
            "--serve-artifacts --artifacts-destination and without --default-artifact-root"
        )
    return None


_NEWEST_EXPERIMENTS: Final = {"max_results": 100, "order_by": ["creation_time DESC"], "view_type": "ALL"}


class _Refused(Exception):
    """A request that failed; the message is fit to show."""


def _is_chosen_by_server(experiment: dict[str, Any]) -> bool:
    return str(experiment["artifact_location"]).endswith(f"/{experiment['experiment_id']}")


def _get(uri: str, path: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return _send(uri, path, "GET", {"params": parameters})


def _post(uri: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    return _send(uri, path, "POST", {"json": body})


def _send(uri: str, path: str, method: str, content: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One request as MLflow's client would send it, credentials included, but with no patience. Raises _Refused."""
    connect(uri)
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    shown = f"{without_credentials(uri)}{path}"
    try:
        credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
        response = http_request(  # type: ignore[no-untyped-call]
            credentials, path, method, max_retries=0, timeout=CHECK_SECONDS, raise_on_status=False, **content
        )
    except Exception as error:
        raise _Refused(f"{method} {shown}: no answer within {CHECK_SECONDS} s ({_cause(error)})") from error
    if response.status_code != 200:
        raise _Refused(f"{method} {shown}: {response.status_code} {response.text[:200]}")
    try:
        answer: dict[str, Any] = response.json()
    except ValueError as error:
        raise _Refused(f"{method} {shown}: not the answer of an MLflow server") from error
    return answer


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    return type(error).__name__


def _folder(settings: Settings) -> Path:
    return settings.data_dir / "mlflow"
