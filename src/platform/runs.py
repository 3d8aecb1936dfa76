"""What a deploy's script left in MLflow: runs and logged models, found by the deploy's token.

The script's environment holds `MLFLOW_RUN_CONTEXT`, so every run and, with MLflow 3, every logged model carries the tag
`asgard.deployment`, in whatever experiment it is.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .. import naming
from .artifacts import is_proxied
from .tracking import Tracking, connect, reaches_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, LoggedModel, Run
    from mlflow.store.entities import PagedList

T = TypeVar("T")

_PAGE: Final = 1000
_HISTORY: Final = "mlflow.log-model.history"
"""Tag of a run in which MLflow 2 logged models: https://mlflow.org/docs/2.22.0/model/#storage-format."""


@dataclass(frozen=True)
class Logged:
    """A model that a script logged.

    `run_id` None: the script logged it outside any run. `source`: URI of its folder, `models:/m-…` (MLflow 3) or
    `mlflow-artifacts:/…` (MLflow 2). `model_id`: MLflow 3 only.
    """

    run_id: str | None
    source: str
    model_id: str | None


@dataclass(frozen=True)
class Traces:
    """All that carries a deploy's token: runs in the order of their end, open ones last; models in that of creation.

    `others`: runs without it in which such a model was logged. MLflow's client makes them so, and an earlier deploy's
    may have been taken up again.
    """

    runs: tuple["Run", ...]
    models: tuple["LoggedModel", ...]
    others: tuple["Run", ...] = ()

    @property
    def began(self) -> int | None:
        """When the script first showed itself in MLflow, in milliseconds since the epoch; None: never."""
        times = [run.info.start_time for run in self.runs] + [model.creation_timestamp for model in self.models]
        return min(times, default=None)


@reaches_mlflow
def traces(tracking: Tracking, token: str) -> Traces:
    """Find what the deploy with this token left."""
    client = connect(tracking.uri)
    experiments = [found.experiment_id for found in pages(lambda page: client.search_experiments(page_token=page))]
    by_token = f"tags.`{naming.TAG_DEPLOYMENT}` = '{token}'"

    def search_runs(wanted: str) -> tuple["Run", ...]:
        return _in_order(
            pages(lambda page: client.search_runs(experiments, wanted, max_results=_PAGE, page_token=page))
        )

    runs = search_runs(by_token)
    models = _models(client, experiments, by_token)
    others = {model.source_run_id for model in models if model.source_run_id} - {run.info.run_id for run in runs}
    return Traces(
        runs,
        tuple(sorted(models, key=lambda model: model.creation_timestamp)),
        search_runs(f"attributes.run_id IN ({', '.join(map(repr, others))})") if others else (),
    )


def _models(client: "MlflowClient", experiments: list[str], wanted: str) -> "list[LoggedModel]":
    try:
        return [*pages(lambda page: client.search_logged_models(experiments, wanted, page_token=page))]
    except Exception as error:
        if getattr(error, "error_code", None) != "ENDPOINT_NOT_FOUND":
            raise
        return []  # it is a server of MLflow 2


def _in_order(runs: Iterable["Run"]) -> tuple["Run", ...]:
    return tuple(sorted(runs, key=lambda run: (run.info.end_time or float("inf"), run.info.start_time)))


def logged(found: Traces) -> Iterator[tuple[Logged, str]]:
    """What may be deployed, each with the URI of its folder in the artifact store.

    First of all the last model that was logged in the last finished run, last of all those logged outside any run.
    """
    for run in reversed(_in_order([*found.runs, *found.others])):
        if run.info.status != "FINISHED":
            continue
        yield from _logged(model for model in found.models if model.source_run_id == run.info.run_id)
        history: list[dict[str, Any]] = json.loads(run.data.tags.get(_HISTORY, "[]"))
        for entry in reversed(history) if run in found.runs else ():  # that of others may be an earlier deploy's
            location = f"{run.info.artifact_uri}/{entry['artifact_path']}"
            yield Logged(run.info.run_id, location, None), location
    yield from _logged(model for model in found.models if not model.source_run_id)


def _logged(models: "Iterable[LoggedModel]") -> Iterator[tuple[Logged, str]]:
    for model in reversed([*models]):
        yield Logged(model.source_run_id or None, model.model_uri, model.model_id), model.artifact_location


@reaches_mlflow
def ensure_run(tracking: Tracking, found: Traces, token: str, experiment_name: str, run_name: str) -> str:
    """The id of the run that stands for the deploy: the script's last one, or a new one that is left RUNNING."""
    if found.runs:
        return str(found.runs[-1].info.run_id)
    experiment_id = ensure_experiment(tracking, experiment_name).experiment_id
    tags = {naming.TAG_DEPLOYMENT: token}
    return str(connect(tracking.uri).create_run(experiment_id, tags=tags, run_name=run_name).info.run_id)


@reaches_mlflow
def ensure_experiment(tracking: Tracking, name: str) -> "Experiment":
    """The experiment, which is made where there is none: scripts that begin together would do so at once."""
    client = connect(tracking.uri)
    if (experiment := client.get_experiment_by_name(name)) is not None:
        return experiment
    try:
        return client.get_experiment(client.create_experiment(name))
    except Exception:
        # Another deploy may have been faster.
        if (experiment := client.get_experiment_by_name(name)) is None:
            raise
        return experiment


@reaches_mlflow
def adopt(tracking: Tracking, run_id: str, model_id: str) -> None:
    """Make a model that was logged outside any run an output of this one."""
    from mlflow.entities import LoggedModelOutput

    connect(tracking.uri).log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


@reaches_mlflow
def end_run(tracking: Tracking, run_id: str, *, failed: bool) -> None:
    """Close a run as FINISHED or FAILED."""
    connect(tracking.uri).set_terminated(run_id, "FAILED" if failed else "FINISHED")


@reaches_mlflow
def mark_failed(tracking: Tracking, found: Traces) -> list[str]:
    """Mark as FAILED the runs that the failed script left open, and its last one; gives all ids that are so now.

    MLflow itself ends a run that is open at exit as FINISHED, whatever the exit code: only the last one can be wrong.
    """
    client = connect(tracking.uri)
    suspects = [run for run in found.runs if run.info.status not in ("FINISHED", "FAILED", "KILLED")]
    suspects += [run for run in found.runs[-1:] if run.info.status == "FINISHED"]
    for run in suspects:
        client.set_terminated(run.info.run_id, "FAILED", run.info.end_time)
    failed = [run for run in found.runs if run in suspects or run.info.status == "FAILED"]
    return [run.info.run_id for run in failed]


@reaches_mlflow
def log(tracking: Tracking, run_id: str, files: Mapping[str, str | Path], tags: Mapping[str, str]) -> None:
    """Add files to a run, by their path among its artifacts (a text, or a file to copy), and tags.

    No files to a run whose artifacts MLflow does not proxy.
    """
    from mlflow.entities import RunTag

    client = connect(tracking.uri)
    if tags:
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    if not files or not is_proxied(client.get_run(run_id).info.artifact_uri):
        return
    with TemporaryDirectory() as folder:
        for name, content in files.items():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read_bytes() if isinstance(content, Path) else content.encode(errors="replace"))
        client.log_artifacts(run_id, folder)


def pages(fetch: Callable[[str | None], "PagedList[T]"]) -> Iterator[T]:
    """All items of a paged search."""
    token: str | None = None
    while True:
        page: Sequence[T] = fetch(token)
        yield from page
        token = getattr(page, "token", None)
        if not token:
            return
