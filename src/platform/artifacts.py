"""Folders in MLflow's artifact store: models and bundles, up, down and away.

The embedded server's store is a folder of this machine, and is used as that: no request, and no server needed. Only
what MLflow proxies is touched: an experiment may keep its artifacts anywhere, and a script may have chosen where.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from ruamel.yaml import YAML

from ..errors import InfrastructureFailed, InvalidRequest
from .tracking import Tracking, connect, reaches_mlflow, without_credentials

BUNDLE: Final = "asgard-bundle"
"""Folder of the bundle among a run's artifacts."""


@reaches_mlflow
def upload_bundle(tracking: Tracking, run_id: str, folder: Path) -> str:
    """Keep a copy of the folder as an artifact of the run, in place of an earlier one; gives its URI."""
    uri = f"{connect(tracking.uri).get_run(run_id).info.artifact_uri}/{BUNDLE}"
    require_proxied(uri)
    local = local_path(tracking, uri)
    if local is None:
        connect(tracking.uri).log_artifacts(run_id, str(folder), BUNDLE)
        return uri
    fresh = local.with_name(f".{uuid4().hex}")
    try:
        shutil.copytree(folder, fresh)
        shutil.rmtree(local, ignore_errors=True)
        fresh.rename(local)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return uri


@reaches_mlflow
def download(tracking: Tracking, uri: str, folder: Path) -> None:
    """Copy an artifact folder, `mlflow-artifacts:/…` or `models:/m-…`, to `folder`, which must not exist.

    Raises InfrastructureFailed, `reason` ArtifactMissing, where it is gone.
    """
    uri = _located(tracking, uri)
    require_proxied(uri)
    local = local_path(tracking, uri)
    if local is not None and local.is_dir():
        shutil.copytree(local, folder)
        return
    connect(tracking.uri)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".download-") as temporary:
        try:
            found = download_artifacts(artifact_uri=uri, dst_path=temporary, tracking_uri=tracking.uri)
        except MlflowException as error:
            if "404 Client Error" not in str(error):  # it says in words what failed
                raise
            raise InfrastructureFailed(
                f"MLflow has no artifact {uri} any more. Deploy again.", reason="ArtifactMissing"
            ) from error
        Path(found).rename(folder)


@reaches_mlflow
def predicts(tracking: Tracking, uri: str) -> bool:
    """Whether the model in this folder of the store can be served: a mere transformer lacks the flavour for that.

    True, too, where MLflow does not proxy the folder.
    """
    if not is_proxied(uri):
        return True
    local = local_path(tracking, uri)
    text = _fetched(tracking, uri, "MLmodel") if local is None else _read(local / "MLmodel")
    return text is not None and "python_function" in YAML(typ="safe").load(text)["flavors"]


def _read(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def _fetched(tracking: Tracking, uri: str, name: str) -> str | None:
    """The text of a file in a folder that only MLflow can reach; None: it is not there."""
    with TemporaryDirectory() as folder, _store_unless_missing(tracking, uri) as store:
        return Path(store.download_artifacts(name, folder)).read_text()
    return None


@reaches_mlflow
def delete(tracking: Tracking, uri: str) -> None:
    """Remove an artifact folder for good; one that is not there is fine, one that MLflow does not proxy is left."""
    if not is_proxied(uri):
        return
    local = local_path(tracking, uri)
    if local is not None:
        if local.exists():
            shutil.rmtree(local)
        return
    with _store_unless_missing(tracking, uri) as store:
        store.delete_artifacts()


@contextmanager
def _store_unless_missing(tracking: Tracking, uri: str) -> Iterator[Any]:
    """MLflow's own way to a folder of its store; ends the block where what is asked for is not there."""
    connect(tracking.uri)
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from requests import HTTPError

    try:
        yield get_artifact_repository(uri, tracking_uri=tracking.uri)
    except HTTPError as error:
        if error.response is None or error.response.status_code != 404:
            raise


def is_proxied(uri: str) -> bool:
    """Whether an artifact is reached through the MLflow server."""
    return urlsplit(uri).scheme == "mlflow-artifacts"


def require_proxied(uri: str) -> None:
    """Raise InvalidRequest for an artifact that is not reached through the MLflow server."""
    if not is_proxied(uri):
        raise InvalidRequest(
            "experiment_name",
            f"The run's experiment keeps its artifacts at {without_credentials(uri)}, which MLflow does not proxy. "
            "Use an experiment without an artifact location of its own.",
        )


def local_path(tracking: Tracking, uri: str) -> Path | None:
    """Where an artifact of the embedded server is on this disk, there or not; None: only MLflow can tell."""
    parts = urlsplit(uri)
    if tracking.artifacts_dir is None or not is_proxied(uri) or parts.netloc:
        return None
    root = tracking.artifacts_dir.resolve()
    path = (root / parts.path.lstrip("/")).resolve()
    if path == root or not path.is_relative_to(root):
        raise ValueError(f"{uri} names no folder in the artifact store")
    return path


def _located(tracking: Tracking, uri: str) -> str:
    """The logged model's place in the store instead of `models:/m-…`."""
    if not uri.startswith("models:/m-"):
        return uri
    return str(connect(tracking.uri).get_logged_model(uri.removeprefix("models:/")).artifact_location)
