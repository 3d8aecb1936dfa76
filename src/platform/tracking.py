"""The way to MLflow: which server, its client, and what its failures become.

`import mlflow` takes seconds: it is imported where it is first used, and `warm_up` does that ahead of all requests.
"""

import functools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

from ..errors import AsgardError, TrackingUnavailable
from . import imports

if TYPE_CHECKING:
    from mlflow import MlflowClient

P = ParamSpec("P")
R = TypeVar("R")

_CLIENT_DEFAULTS: Final = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # MLflow's own would hold a request for minutes when the server is down
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(frozen=True)
class Tracking:
    """An MLflow server. `artifacts_dir`: for the embedded one, what `mlflow-artifacts:/` is on this disk.

    What works on that folder alone needs no server that runs.
    """

    uri: str
    artifacts_dir: Path | None = None

    @property
    def is_embedded(self) -> bool:
        """Whether this Asgard alone uses it."""
        return self.artifacts_dir is not None


def warm_up() -> threading.Thread:
    """Import MLflow in the background; whoever needs it earlier waits for the same import."""
    thread = threading.Thread(target=_import, name="import mlflow", daemon=True)
    thread.start()
    return thread


@functools.cache
def connect(uri: str) -> "MlflowClient":
    """A client of the server at `uri`, with the credentials in `MLFLOW_TRACKING_*`. Sends nothing."""
    _import()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def reaches_mlflow(
    function: Callable[Concatenate[Tracking, P], R],
) -> Callable[Concatenate[Tracking, P], R]:
    """Let MLflow's failures out as TrackingUnavailable, which says where and what to do."""

    @functools.wraps(function)
    def call(tracking: Tracking, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(tracking, *args, **kwargs)
        except AsgardError:
            raise
        except Exception as error:
            if not _is_mlflows(error):
                raise
            shown = without_credentials(tracking.uri)
            raise TrackingUnavailable(
                f"MLflow at {shown} failed or could not be reached: {_first_line(error).replace(tracking.uri, shown)} "
                "See GET /mlops/status and, for the embedded one, logs/mlflow.log in the data folder."
            ) from error

    return call


def is_missing(error: Exception) -> bool:
    """Whether MLflow said that there is no such thing."""
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


def taken_apart(uri: str) -> str:
    """The address alone; user and password, if it holds them, go to `MLFLOW_TRACKING_*` of this process.

    MLflow sends them from there as well, and shows the address in what it raises, logs and prints in scripts.
    """
    parts = urlsplit(uri)
    for name, value in (("MLFLOW_TRACKING_USERNAME", parts.username), ("MLFLOW_TRACKING_PASSWORD", parts.password)):
        if value is not None:
            os.environ[name] = unquote(value)
    return without_credentials(uri)


def without_credentials(uri: str) -> str:
    """The address as it may be shown: user and password, if it holds any, left out."""
    parts = urlsplit(uri)
    _, given, host = parts.netloc.rpartition("@")
    # Put together again, an address without a host would lose slashes, as sqlite:///mlflow.db.
    return parts._replace(netloc=host).geturl() if given else uri


def _import() -> None:
    for name, value in _CLIENT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    with imports.uncollected():
        from mlflow.utils import plugins
    plugins.get_entry_points = _entry_points


def _entry_points(group: str) -> list[EntryPoint]:
    """MLflow's plugins but Feast's, which imports all of Feast, for seconds, to add a Kubernetes token to requests."""
    return [found for found in entry_points(group=group) if not found.value.startswith("feast.")]


def _is_mlflows(error: Exception) -> bool:
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    return isinstance(error, MlflowException | RequestException)


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0][:300]
    return line if line.endswith(".") else f"{line}."
