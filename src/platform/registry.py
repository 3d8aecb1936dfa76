"""MLflow's model registry: what it holds, and what a deploy puts there and takes away."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from .. import naming
from ..errors import InvalidRequest, ModelNotFound
from ..stacks.spec import Release
from . import artifacts, mlflow_database, mlflow_files, runs
from .mlflow_database import ModelRow, VersionRow
from .runs import Traces, pages
from .tracking import Tracking, connect, is_missing, reaches_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities import model_registry as entities

T = TypeVar("T")

_PAGE: Final = 1000
_VERSIONS: Final = "mlflow.modelVersions"
"""Tag of a logged model: the versions that its script made of it, as a JSON list of `{"name", "version"}`."""


@dataclass(frozen=True)
class RegisteredModel:
    """One registered model. `latest_version`: its highest version number; 0: it has none. Times are UTC."""

    name: str
    description: str
    creation_timestamp: datetime
    last_updated_timestamp: datetime
    latest_version: int
    tags: dict[str, str]


@dataclass(frozen=True)
class ModelVersion:
    """One version. `current_stage`: MLflow's; where that is None, `Production` for the version that Asgard serves."""

    version: int
    run_id: str
    status: str
    creation_timestamp: datetime
    current_stage: str
    description: str


@dataclass(frozen=True)
class Trained:
    """What a script made of `model_name`. `version`: the one that it registered under that name itself.

    `source`: URI of the model's folder; `artifacts.download` takes it. `model_id`: with MLflow 3.
    """

    run_id: str
    source: str
    model_id: str | None
    version: int | None


@reaches_mlflow
def list_models(tracking: Tracking) -> list[RegisteredModel]:
    """All registered models, deployed or not, in MLflow's order (by name)."""
    database = _database(tracking)
    if database is not None and (rows := mlflow_database.registered_models(database)) is not None:
        return [_of_row(row) for row in rows]
    # The client's own search asks for what is tagged as no prompt: a server from before prompts finds nothing.
    store = connect(tracking.uri)._get_registry_client().store  # type: ignore[no-untyped-call]
    found = pages(lambda page: store.search_registered_models(max_results=_PAGE, page_token=page))
    return [_model(model, _highest(model.latest_versions)) for model in found]


@reaches_mlflow
def get_model(tracking: Tracking, name: str) -> tuple[RegisteredModel, list[ModelVersion]]:
    """One model and its versions, newest first. Raises ModelNotFound."""
    database = _database(tracking)
    if database is not None and (read := mlflow_database.registered_model(database, name, naming.ALIAS)) is not None:
        row, versions, serving = read
        return _of_row(row), [_version(version, serving) for version in versions]
    client = connect(tracking.uri)
    try:
        model = client.get_registered_model(name)
    except Exception as error:
        if is_missing(error) or _is_invalid(error):
            raise ModelNotFound(name) from error
        raise
    found = sorted(_versions(tracking, name), key=_number, reverse=True)
    serving = int(model.aliases.get(naming.ALIAS, 0))
    return _model(model, _highest(found)), [_version(version, serving) for version in found]


@reaches_mlflow
def find_trained(tracking: Tracking, token: str, model_name: str, experiment_name: str) -> Trained | None:
    """What the script of the deploy with this token made; None: no model that predicts, in a run that finished.

    A version that the script registered under `model_name` is it. Else, of those that predict, the model that it
    registered last under another name since its last finished run with a model began, as scripts that compare several
    do with the best, or the last model of that run; one that was logged outside any run gets a run in
    `experiment_name`. Raises InvalidRequest where its artifacts are not reached through MLflow.
    """
    found = runs.traces(tracking, token)
    registered = _versions_of(tracking, found)
    last = max((version for version in registered if version.name == model_name), key=_number, default=None)
    logged = _logged_as(last) if last is not None else _last_logged(tracking, found, registered)
    if logged is None:
        return None
    for run in found.runs:
        if run.info.run_id == logged.run_id:
            artifacts.require_proxied(run.info.artifact_uri)
    run_id = logged.run_id
    if run_id is None:
        run_id = runs.ensure_run(tracking, found, token, experiment_name, model_name)
        if logged.model_id is not None:
            runs.adopt(tracking, run_id, logged.model_id)
        runs.end_run(tracking, run_id, failed=False)
    return Trained(run_id, logged.source, logged.model_id, None if last is None else _number(last))


def _last_logged(
    tracking: Tracking, found: Traces, registered: "Sequence[entities.ModelVersion]"
) -> runs.Logged | None:
    def first(models: Iterable[tuple[runs.Logged, str]]) -> runs.Logged | None:
        return next((model for model, location in models if artifacts.predicts(tracking, location)), None)

    models = [*runs.logged(found)]
    last = first(models)
    began = max((run.info.start_time for run in found.runs if last and run.info.run_id == last.run_id), default=0)
    times = {version.source: version.creation_timestamp for version in registered}
    since = [each for each in models if times.get(each[0].source, -1) >= began]
    return first(sorted(since, key=lambda each: -times[each[0].source])) or last


@reaches_mlflow
def register(tracking: Tracking, model_name: str, trained: Trained, tags: Mapping[str, str]) -> int:
    """Make a version of what was trained, or use the one the script made, and tag it; gives its number."""
    client = connect(tracking.uri)
    if trained.version is not None:
        for key, value in tags.items():
            client.set_model_version_tag(model_name, str(trained.version), key, value)
        return trained.version
    create = partial(
        client.create_model_version,
        model_name,
        trained.source,
        run_id=trained.run_id,
        tags=dict(tags),
        model_id=trained.model_id,
        await_creation_for=0,
    )
    try:
        return int(create().version)
    except Exception as error:
        if not is_missing(error) and not _is_denied(error):
            raise
        _create_registered_model(client, model_name, error)
    try:
        return int(create().version)
    except BaseException:
        client.delete_registered_model(model_name)
        raise


def _create_registered_model(client: "MlflowClient", name: str, refusal: Exception) -> None:
    try:
        client.create_registered_model(name)
    except Exception as error:
        # Versions of models that are not there are denied, too; where it is there, that was the reason.
        raise (refusal if _is_denied(refusal) else error) from error


@reaches_mlflow
def record_release(tracking: Tracking, model_name: str, release: Release) -> None:
    """Note on the version what serving it takes, so that `find_release` finds it."""
    for key, value in ((naming.TAG_BUNDLE, release.bundle), (naming.TAG_DIGEST, release.digest)):
        connect(tracking.uri).set_model_version_tag(model_name, str(release.version), key, value)


@reaches_mlflow
def find_release(tracking: Tracking, model_name: str, version: int | None, *, before: int = 0) -> Release:
    """The release of a version; None: of the newest one below `before` that has ever served or could have.

    Raises InvalidRequest where there is none.
    """
    candidates = {
        int(found.version): Release(
            version=int(found.version),
            run_id=found.run_id or "",
            digest=found.tags[naming.TAG_DIGEST],
            bundle=found.tags[naming.TAG_BUNDLE],
        )
        for found in _versions(tracking, model_name)
        if naming.TAG_BUNDLE in found.tags
        and naming.TAG_DIGEST in found.tags
        and (version is not None or found.tags.get(naming.TAG_STATUS) != "failed")
    }
    if version is None:
        earlier = [number for number in candidates if number < before]
        if not earlier:
            raise InvalidRequest("version", f"{model_name} has no version before {before} that was deployed.")
        return candidates[max(earlier)]
    if version not in candidates:
        known = ", ".join(map(str, sorted(candidates))) or "none"
        raise InvalidRequest("version", f"{model_name} has no deployed version {version}; deployed ones: {known}.")
    return candidates[version]


@reaches_mlflow
def mark_serving(tracking: Tracking, model_name: str, version: int, inference_url: str, deployment_id: str) -> None:
    """Point the alias at the version that serves and say on the model where."""
    client = connect(tracking.uri)
    client.set_registered_model_alias(model_name, naming.ALIAS, str(version))
    client.set_registered_model_tag(model_name, naming.TAG_INFERENCE_URL, inference_url)
    client.set_registered_model_tag(model_name, naming.TAG_DEPLOYMENT_ID, deployment_id)


@reaches_mlflow
def tag_model(tracking: Tracking, model_name: str, tags: Mapping[str, str]) -> None:
    """Add tags to the registered model; those of other names stay."""
    client = connect(tracking.uri)
    for key, value in tags.items():
        client.set_registered_model_tag(model_name, key, value)


@reaches_mlflow
def unmark_serving(tracking: Tracking, model_name: str) -> None:
    """Take away what `mark_serving` set; a model that is not there is fine."""
    client = connect(tracking.uri)
    _unless_missing(lambda: client.delete_registered_model_tag(model_name, naming.TAG_INFERENCE_URL))
    _unless_missing(lambda: client.delete_registered_model_tag(model_name, naming.TAG_DEPLOYMENT_ID))
    _unless_missing(lambda: client.delete_registered_model_alias(model_name, naming.ALIAS))


@reaches_mlflow
def mark_failed(tracking: Tracking, model_name: str, version: int) -> None:
    """Tag a version whose infrastructure did not come up; one that is not there is fine."""
    client = connect(tracking.uri)
    _unless_missing(lambda: client.set_model_version_tag(model_name, str(version), naming.TAG_STATUS, "failed"))


@reaches_mlflow
def discard(tracking: Tracking, token: str) -> list[str]:
    """Undo what a failed script did: the versions it registered go, its runs are FAILED. Gives the failed runs' ids.

    A registered model that it made, and that is empty now, goes too.
    """
    client = connect(tracking.uri)
    found = runs.traces(tracking, token)
    names = set()
    for version in _versions_of(tracking, found):
        _unless_missing(partial(client.delete_model_version, version.name, str(version.version)))
        names.add(version.name)
    for name in names:
        model, versions = get_model(tracking, name)
        if not versions and found.began is not None and model.creation_timestamp >= _time(found.began):
            client.delete_registered_model(name)
    return runs.mark_failed(tracking, found)


@reaches_mlflow
def purge(tracking: Tracking, model_name: str) -> bool:
    """Delete the registered model, and from the store what belonged to it; False: there was none.

    That is the artifacts of the runs behind its versions, bundles included, and of all that the same deploys logged; of
    a run that is no deploy's, the versions' own folders alone. What a version of another model still needs stays; so do
    the runs themselves, with their parameters and metrics.
    """
    client = connect(tracking.uri)
    versions = _versions(tracking, model_name)
    behind = [run for run in {version.run_id for version in versions if version.run_id} if run]
    found = [_run(tracking, run_id) for run_id in behind]
    tokens = {run.data.tags[naming.TAG_DEPLOYMENT] for run in found if run and naming.TAG_DEPLOYMENT in run.data.tags}
    deploys = [runs.traces(tracking, token) for token in tokens]
    try:
        client.delete_registered_model(model_name)
    except Exception as error:
        if is_missing(error) or _is_invalid(error):
            return False
        raise
    of_runs = {run.info.run_id: run for run in found if run}
    of_runs |= {run.info.run_id: run for traced in deploys for run in traced.runs}
    of_models = {model.model_id: model for traced in deploys for model in traced.models}
    for model_id in {_model_id(version.source) for version in versions} - {None, *of_models}:
        model = _logged_model(tracking, str(model_id))
        of_models |= {model.model_id: model} if model is not None else {}
    needed = _needed(tracking, of_runs, of_models)
    for model in of_models.values():
        if not needed & {model.model_id, model.source_run_id}:
            artifacts.delete(tracking, model.artifact_location)
            _unless_missing(partial(client.delete_logged_model, model.model_id))
    for run in of_runs.values():
        if run.info.run_id not in needed:
            for place in _places(run, versions):
                artifacts.delete(tracking, place)
    return True


def _places(run: "Run", versions: "Iterable[entities.ModelVersion]") -> set[str]:
    """Of a deploy's run all artifacts; of another only what versions are made of: the rest is somebody else's work."""
    root = str(run.info.artifact_uri)
    if {naming.TAG_DEPLOYMENT, naming.TAG_DEPLOYMENT_ID} & run.data.tags.keys():
        return {root}
    return {version.source for version in versions if version.source and version.source.startswith(f"{root}/")}


def _needed(tracking: Tracking, of_runs: Iterable[str], of_models: Mapping[str, "LoggedModel"]) -> set[str | None]:
    """Ids of the runs and logged models that versions of other registered models still stand on."""
    kept = _versions_of(tracking, Traces((), tuple(of_models.values())), of_runs)
    return {version.run_id or None for version in kept} | {_model_id(version.source) for version in kept}


def _database(tracking: Tracking) -> Path | None:
    """Of the embedded MLflow; None: another is used."""
    return None if tracking.artifacts_dir is None else mlflow_files.database(tracking.artifacts_dir.parent)


def _versions(tracking: Tracking, model_name: str) -> "list[entities.ModelVersion]":
    if "'" in model_name and '"' in model_name:
        # MLflow's filters cannot quote such a name.
        client, every = connect(tracking.uri), None
        found = pages(lambda page: client.search_model_versions(every, max_results=_PAGE, page_token=page))
        return [version for version in found if version.name == model_name]
    quote = '"' if "'" in model_name else "'"
    return _search(tracking, f"name = {quote}{model_name}{quote}")


def _search(tracking: Tracking, filter_string: str) -> "list[entities.ModelVersion]":
    client = connect(tracking.uri)
    return list(pages(lambda page: client.search_model_versions(filter_string, max_results=_PAGE, page_token=page)))


def _versions_of(tracking: Tracking, found: Traces, more_runs: Iterable[str] = ()) -> "list[entities.ModelVersion]":
    """The versions, of whatever model, that were made of these runs and logged models."""
    client = connect(tracking.uri)
    run_ids = [run.info.run_id for run in found.runs] + list(more_runs)
    by_run = _search(tracking, f"run_id IN ({', '.join(map(repr, run_ids))})") if run_ids else []
    known = {(version.name, str(version.version)) for version in by_run}
    rest = {
        (made["name"], str(made["version"]))
        for model in found.models
        for made in json.loads(model.tags.get(_VERSIONS, "[]"))
    } - known
    return by_run + [
        version
        for name, number in sorted(rest)
        if (version := _unless_missing(partial(client.get_model_version, name, number))) is not None
    ]


def _run(tracking: Tracking, run_id: str) -> "Run | None":
    return _unless_missing(lambda: connect(tracking.uri).get_run(run_id))


def _logged_model(tracking: Tracking, model_id: str) -> "LoggedModel | None":
    return _unless_missing(lambda: connect(tracking.uri).get_logged_model(model_id))


def _unless_missing(act: Callable[[], T]) -> T | None:
    try:
        return act()
    except Exception as error:
        if not is_missing(error):
            raise
    return None


def _logged_as(version: "entities.ModelVersion") -> runs.Logged:
    return runs.Logged(version.run_id or None, version.source or "", _model_id(version.source))


def _model_id(source: str | None) -> str | None:
    return source.removeprefix("models:/") if source and source.startswith("models:/m-") else None


def _number(version: "entities.ModelVersion") -> int:
    return int(version.version)


def _highest(versions: "Iterable[entities.ModelVersion]") -> int:
    return max(map(_number, versions), default=0)


def _model(model: "entities.RegisteredModel", latest_version: int) -> RegisteredModel:
    return RegisteredModel(
        name=model.name,
        description=model.description or "",
        creation_timestamp=_time(model.creation_timestamp),
        last_updated_timestamp=_time(model.last_updated_timestamp),
        latest_version=latest_version,
        tags=dict(model.tags),
    )


def _of_row(row: ModelRow) -> RegisteredModel:
    return RegisteredModel(
        name=row.name,
        description=row.description or "",
        creation_timestamp=_time(row.creation_time),
        last_updated_timestamp=_time(row.last_updated_time),
        latest_version=row.latest_version,
        tags=row.tags,
    )


def _version(version: "entities.ModelVersion | VersionRow", serving: int) -> ModelVersion:
    number, stage = int(version.version), version.current_stage or "None"
    return ModelVersion(
        version=number,
        run_id=version.run_id or "",
        status=version.status,
        creation_timestamp=_time(version.creation_timestamp),
        current_stage="Production" if stage == "None" and number == serving else stage,
        description=version.description or "",
    )


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _is_denied(error: Exception) -> bool:
    return getattr(error, "error_code", None) == "PERMISSION_DENIED"


def _is_invalid(error: Exception) -> bool:
    """MLflow refuses to look up a name that no registered model can have, such as one with a slash."""
    return getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE"
