"""The deploy flow, top to bottom: environment → training → registration → bundle → infrastructure; and its undo."""

import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from .. import naming
from ..errors import (
    AsgardError,
    DeployInProgress,
    InfrastructureFailed,
    ModelNotFound,
    NoModelLogged,
    ScriptFailed,
    TrackingUnavailable,
)
from ..progress import OnProgress, Progress, Stage
from ..serving import options
from ..settings import Settings
from ..stacks.provider import local_server
from ..stacks.spec import DeploymentConfig, ModelSpec, Release, Target
from . import (
    artifacts,
    bundle,
    cluster,
    environments,
    files,
    journal,
    mlflow_server,
    model_images,
    ports,
    registry,
    rollouts,
    runs,
    script_failures,
    secrets,
    shared_stack,
    stackfile,
    training,
)
from .admission import Admission
from .compiling import Compiler
from .engine import Engine
from .journal import Journal
from .locks import model_lock
from .registry import Trained
from .requests import DeploymentChanges, DeployRequest
from .script_templates import ScriptTemplates
from .stackfile import StackFile, StackFileInvalid
from .tracking import Tracking

_log = structlog.get_logger("asgard.deploy")


@dataclass(frozen=True)
class Deployed:
    """The stack's outputs, and when and how fast they came to be."""

    deployment_id: str
    model_name: str
    model_version: str
    run_id: str
    inference_url: str
    endpoints: Mapping[str, str]
    namespace: str
    image_uri: str
    deployment_time_seconds: float
    created_at: datetime


@dataclass(frozen=True)
class Tools:
    """What the flow drives."""

    settings: Settings
    engine: Engine
    admission: Admission
    templates: ScriptTemplates

    @property
    def tracking(self) -> Tracking:
        """Asked for anew each time: the embedded MLflow moves when another program has taken its port."""
        return mlflow_server.tracking(self.settings)


def deploy(tools: Tools, request: DeployRequest, on_progress: OnProgress) -> Deployed:
    """Train, register, bundle and bring up a model; blocks until it serves. If it fails, what served keeps serving."""
    started, settings, model = time.monotonic(), tools.settings, request.model_name
    with _operation(tools, model, on_progress) as entry:
        _require_stack_file(tools, entry)
        _require_cluster(tools, model)
        folder = journal.folder(settings.data_dir, model)
        former = _stack_file(settings, model)
        environment_vars = _effective(request.environment_vars, former)
        target = settings.target if former is None else former.spec.target

        _stage(on_progress, "environment", "Resolving and installing the requirements")
        project = folder / "project"
        lines = _lines(on_progress, "environment")
        where = environments.HERE
        if target == "kubernetes":
            model_images.check_name(settings, model)
            where = model_images.where(settings, lines)
        requirements = (*request.requirements, *options.requirements(environment_vars))
        lock = environments.resolve(requirements, project, settings, lines, where)
        if target == "kubernetes":
            model_images.check(settings, lock, lines)
        environment = environments.ensure(lock, settings, lines)
        environments.compile_beside(environment)

        _stage(on_progress, "training", f"Running {request.script_name} on Python {lock.python}")
        experiment = runs.ensure_experiment(tools.tracking, request.experiment_name)
        artifacts.require_proxied(experiment.artifact_location)
        trained = _train(tools, request, entry, project, environment, environment_vars, on_progress)

        _stage(on_progress, "registration", f"Registering {model}")
        version = registry.register(tools.tracking, model, trained, request.tags or {})
        entry = journal.update(settings.data_dir, replace(entry, version=version))
        identifier = naming.deployment_id(model, version, trained.run_id)
        runs.log(tools.tracking, trained.run_id, {}, {naming.TAG_DEPLOYMENT_ID: identifier})

        _stage(on_progress, "bundle", f"Bundling version {version}")
        compiler = Compiler(
            environment, folder / "compiler" / "project", entry.token, environment_vars, settings, tools.templates
        )
        on_log = _lines(on_progress, "bundle")
        release = _bundle(tools, folder, lock, model, version, trained, target, compiler, on_log)
        # It goes with the deploy: a model that reads from there would serve, and never load again.
        training.discard(project)

        _stage(on_progress, "infrastructure", f"Bringing up the stack {model}")
        spec = _spec(settings, model, target, release, former, request.deployment_config)
        outputs = _bring_up(tools, entry, StackFile(spec, environment_vars), on_progress)
        registry.tag_model(tools.tracking, model, request.tags or {})
    return _deployed(outputs, started)


def rollback(tools: Tools, model: str, version: int | None, on_progress: OnProgress) -> Deployed:
    """Serve an earlier version again; None: the one before what serves. Needs no training: its bundle is in MLflow."""
    started = time.monotonic()
    with _operation(tools, model, on_progress) as entry:
        former = _stack_file(tools.settings, model)
        if former is None:
            raise ModelNotFound(model)
        release = registry.find_release(tools.tracking, model, version, before=former.spec.release.version)
        _stage(on_progress, "infrastructure", f"Rolling {model} back to version {release.version}")
        spec = former.spec.model_copy(update={"release": release})
        # Where the file says so already, only what really is can tell whether it serves.
        outputs = _bring_up(tools, entry, replace(former, spec=spec), on_progress, refresh=spec == former.spec)
    return _deployed(outputs, started)


def destroy(tools: Tools, model: str, on_progress: OnProgress, *, purge: bool = False) -> None:
    """Take down the model's stack and its file. `purge`: also its registered model, with runs' artifacts."""
    settings = tools.settings
    with model_lock(settings.data_dir, model):
        _stage(on_progress, "queue", f"Looking for what an earlier operation on {model} left")
        _require_cluster(tools, model)
        recover(tools, model, going=True)
        path = stackfile.path_of(settings.stacks_dir, model)
        _stage(on_progress, "infrastructure", f"Destroying the stack {model}")
        tools.engine.free_dead_lock(model)
        found = tools.engine.destroy(model, token=_token(), on_log=_lines(on_progress, "infrastructure"))
        # What serves without its stack: somebody removed that alone, or the backend was lost.
        found = local_server.discard(settings.data_dir, model) or found
        found = path.exists() or found
        if found or tools.tracking.is_embedded:  # what another Asgard serves under this name is not ours to take
            registry.unmark_serving(tools.tracking, model)
        # Last, so that a destroy that MLflow's end cuts short is done again.
        path.unlink(missing_ok=True)
        if purge:
            _stage(on_progress, "registration", f"Deleting the registered model {model}")
            found = registry.purge(tools.tracking, model) or found
        if not found:
            raise ModelNotFound(model)


def recover(tools: Tools, model: str, *, going: bool = False) -> None:
    """Finish what a dead or failed operation on the model left. The caller holds the model's lock.

    `going`: the stack is going to be destroyed, and need not come up as it was: maybe it cannot.
    """
    entry = journal.find(tools.settings.data_dir, model)
    if entry is not None:
        _log.info("undoing what an earlier operation left", model=model, token=entry.token)
        _undo(tools, entry, died=True, going=going)
        journal.end(tools.settings.data_dir, model)


@contextmanager
def _operation(tools: Tools, model: str, on_progress: OnProgress) -> Iterator[Journal]:
    """Hold the model's lock, a place and a journal; on any failure put back what was."""
    settings = tools.settings
    waiting = partial(_stage, on_progress, "queue", "Waiting for a place: as many deploys as may run at once do so")
    with files.full_disk_told(), model_lock(settings.data_dir, model), tools.admission.place(waiting):
        recover(tools, model)
        tools.engine.free_dead_lock(model)
        path = stackfile.path_of(settings.stacks_dir, model)
        entry = Journal(_token(), model, stackfile.text(path))
        journal.begin(settings.data_dir, entry)
        try:
            with files.full_disk_told():
                yield entry
        except BaseException as error:
            _put_back(tools, model, error)
            raise
        journal.end(settings.data_dir, model)


def _put_back(tools: Tools, model: str, error: BaseException) -> None:
    entry = journal.find(tools.settings.data_dir, model)
    if entry is None:
        return
    undone = "complete"
    try:
        # A stack that somebody else works on was not touched, and is not ours to put back.
        _undo(tools, entry, died=False, engine=not isinstance(error, DeployInProgress))
        journal.end(tools.settings.data_dir, model)
    except Exception:
        _log.exception("the undo failed; the next operation or start completes it", model=model)
        undone = "incomplete"
    if isinstance(error, AsgardError) and (entry.infrastructure or undone == "incomplete"):
        error.undo = undone


def _undo(tools: Tools, entry: Journal, *, died: bool, engine: bool = True, going: bool = False) -> None:
    """Put back the stack, its file and what stands in MLflow. Raises where a part could not be; safe to repeat."""
    settings, model = tools.settings, entry.model
    if died:
        training.end_leftovers(entry.token)
    journal.free_space(settings.data_dir, model)
    if entry.infrastructure:
        path = stackfile.path_of(settings.stacks_dir, model)
        edited = entry.restored and entry.stack_file is not None and path.exists()
        if not edited:
            stackfile.restore(path, entry.stack_file)
            journal.update(settings.data_dir, replace(entry, restored=True))
        if engine:
            _undo_stack(tools, entry, died=died, going=going)
            if not edited:
                # Once more: pulumi writes a file with a salt where it finds none.
                stackfile.restore(path, entry.stack_file)
    local_server.prune(settings.data_dir, model)
    if pushed := journal.noted_image(settings.data_dir, model):
        model_images.remove(*pushed)
    if entry.version is None:
        registry.discard(tools.tracking, entry.token)
    else:
        registry.mark_failed(tools.tracking, model, entry.version)


def _undo_stack(tools: Tools, entry: Journal, *, died: bool, going: bool) -> None:
    model, ignore = entry.model, _ignore
    if died:
        _require_cluster(tools, model)
        tools.engine.free_dead_lock(model)
        tools.engine.recover(model, token=entry.token)
    if entry.stack_file is None:
        tools.engine.destroy(model, token=entry.token, on_log=ignore)
        local_server.discard(tools.settings.data_dir, model)
        if entry.marked:
            registry.unmark_serving(tools.tracking, model)
    elif not going:
        outputs = tools.engine.up(model, token=entry.token, on_log=ignore, refresh=True)
        if (spec := _spec_as_it_is(tools, model)) is not None and spec.target == "kubernetes":
            rollouts.settle(tools.settings, spec)
        if entry.marked:
            _mark_serving(tools, model, outputs)


def _require_cluster(tools: Tools, model: str) -> None:
    """Raise InfrastructureFailed where the model is on another cluster than the one that is named now."""
    spec = _spec_as_it_is(tools, model)
    if (tools.settings.target if spec is None else spec.target) == "kubernetes":
        shared_stack.require_cluster(tools.settings, tools.engine)


def _spec_as_it_is(tools: Tools, model: str) -> ModelSpec | None:
    """What the stack file says; None where there is none, or where it is not valid, which whoever needs it tells."""
    with suppress(StackFileInvalid):
        return stackfile.read_spec(stackfile.path_of(tools.settings.stacks_dir, model))
    return None


def _train(
    tools: Tools,
    request: DeployRequest,
    entry: Journal,
    project: Path,
    environment: environments.Environment,
    environment_vars: Mapping[str, str],
    on_progress: OnProgress,
) -> Trained:
    """Run the script and find what it logged. Whatever comes of it, its run keeps script, lock, output and tags."""
    try:
        training.run_script(
            request.script,
            request.script_name,
            environment,
            project,
            tracking_uri=tools.tracking.uri,
            experiment_name=request.experiment_name,
            token=entry.token,
            environment_vars=environment_vars,
            settings=tools.settings,
            templates=tools.templates,
            on_log=_lines(on_progress, "training"),
        )
        trained = registry.find_trained(tools.tracking, entry.token, request.model_name, request.experiment_name)
        if trained is None:
            elsewhere = script_failures.elsewhere(request.script)
            raise NoModelLogged(
                f"{request.script_name} ended well and logged no model that predicts. Call mlflow.<flavour>.log_model "
                f"in it, inside a run that finishes.{elsewhere}",
                log_tail=training.log_tail(project),
            )
    except ScriptFailed as error:
        try:
            error.run_id = _keep_traces(tools, request, entry, project, run_id=None)
        except TrackingUnavailable:
            # Why the script failed is what matters, and MLflow's end may well be the reason.
            _log.exception("the failed script's traces could not be kept", model=request.model_name)
        raise
    _keep_traces(tools, request, entry, project, run_id=trained.run_id)
    return trained


def _keep_traces(tools: Tools, request: DeployRequest, entry: Journal, project: Path, *, run_id: str | None) -> str:
    """Add to the run (None: the script's last one, or a new one that FAILED) what reproduces it; gives its id."""
    tracking = tools.tracking
    if run_id is None:
        found = runs.traces(tracking, entry.token)
        run_id = runs.ensure_run(tracking, found, entry.token, request.experiment_name, request.model_name)
        runs.end_run(tracking, run_id, failed=True)
    runs.log(
        tracking,
        run_id,
        {
            f"asgard/{path.name}": path
            for path in (project / request.script_name, project / "uv.lock", training.log_file(project))
        },
        dict(request.tags or {}),
    )
    return run_id


def _bundle(
    tools: Tools,
    folder: Path,
    lock: environments.Lock,
    model: str,
    version: int,
    trained: Trained,
    target: Target,
    compiler: Compiler,
    on_log: Callable[[str], None],
) -> Release:
    """Assemble the bundle and keep it in MLflow; then make of it what the target runs: an image, or a local copy."""
    staged = folder / "bundle"
    artifacts.download(tools.tracking, trained.source, folder / "model")
    digest = bundle.assemble(
        staged,
        model=folder / "model",
        environment=folder / "project",
        model_name=model,
        version=version,
        run_id=trained.run_id,
        python=lock.python,
        image=model_images.foundation(tools.settings, lock, on_log) if target == "kubernetes" else None,
        compile_model=partial(compiler.add_to, on_log=on_log),
    )
    uri = artifacts.upload_bundle(tools.tracking, trained.run_id, staged)
    if target == "kubernetes":
        digest = model_images.digest(tools.settings, staged, on_log)
    else:
        local = local_server.bundle_path(tools.settings.data_dir, model, digest)
        if not local.exists():
            local.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(staged, local)
    release = Release(version=version, run_id=trained.run_id, digest=digest, bundle=uri)
    registry.record_release(tools.tracking, model, release)
    return release


def _spec(
    settings: Settings,
    model: str,
    target: Target,
    release: Release,
    former: StackFile | None,
    changes: DeploymentChanges,
) -> ModelSpec:
    """The former spec with what the request names and the new release; the defaults where there was none."""
    named = {name: value for name, value in vars(changes).items() if value is not None}
    if former is not None:
        deployment = former.spec.deployment.model_copy(update=named)
        return former.spec.model_copy(update={"deployment": deployment, "release": release})
    return ModelSpec(
        name=model,
        target=target,
        namespace=settings.namespace,
        deployment=DeploymentConfig(**named),
        port=ports.allocate(_ports_taken(settings)) if target == "local" else None,
        kubernetes=shared_stack.target(settings) if target == "kubernetes" else None,
        release=release,
    )


def _bring_up(
    tools: Tools, entry: Journal, content: StackFile, on_progress: OnProgress, *, refresh: bool = False
) -> dict[str, Any]:
    settings, model = tools.settings, entry.model
    on_log = _lines(on_progress, "infrastructure")
    if content.spec.target == "kubernetes":
        there = settings.model_copy(update={"namespace": content.spec.namespace})
        shared_stack.ensure(there, tools.engine, on_log)
    _require_stack_file(tools, entry)  # once more: training takes its time
    entry = journal.update(settings.data_dir, replace(entry, infrastructure=True))
    stackfile.write(stackfile.path_of(settings.stacks_dir, model), content, secrets.passphrase(settings))
    if content.spec.target == "kubernetes":
        outputs = _roll_out(tools, entry, content.spec, on_log)
    else:
        outputs = tools.engine.up(model, token=entry.token, on_log=on_log, refresh=refresh)
    journal.update(settings.data_dir, replace(entry, marked=True))
    _mark_serving(tools, model, outputs)
    return outputs


def _mark_serving(tools: Tools, model: str, outputs: Mapping[str, Any]) -> None:
    version, url = int(outputs["model_version"]), outputs["inference_url"]
    registry.mark_serving(tools.tracking, model, version, url, outputs["deployment_id"])


def _require_stack_file(tools: Tools, entry: Journal) -> None:
    """Raise InfrastructureFailed where the stack is there and its file is not."""
    if entry.stack_file is None and tools.engine.outputs(entry.model, token=entry.token):
        raise InfrastructureFailed(
            f"The stack {entry.model} is in the backend already, and its file Pulumi.{entry.model}.yaml is not in "
            f"{tools.settings.stacks_dir}: another Asgard has deployed it. Put that file there, or deploy with that "
            "one.",
            reason="StackFileMissing",
        )


def _roll_out(tools: Tools, entry: Journal, spec: ModelSpec, on_log: Callable[[str], None]) -> dict[str, Any]:
    def give_up() -> None:
        on_log("The new pods cannot become ready: the rollout is ended before its time")
        tools.engine.give_up(entry.token)

    try:
        with rollouts.watched(tools.settings, spec, give_up):
            outputs = tools.engine.up(spec.name, token=entry.token, on_log=on_log)
    except InfrastructureFailed as error:
        raise cluster.explained(tools.settings, spec, error) from error
    rollouts.settle(tools.settings, spec)
    return outputs


def _stack_file(settings: Settings, model: str) -> StackFile | None:
    path, phrase = stackfile.path_of(settings.stacks_dir, model), secrets.passphrase(settings)
    stackfile.check(path, phrase)
    return stackfile.read(path, phrase)


def _ports_taken(settings: Settings) -> set[int]:
    return {spec.port for spec in stackfile.specs(settings.stacks_dir) if spec.port is not None}


def _effective(posted: Mapping[str, str] | None, former: StackFile | None) -> Mapping[str, str]:
    if posted is not None:
        return posted
    return former.environment if former is not None else {}


def _deployed(outputs: Mapping[str, Any], started: float) -> Deployed:
    return Deployed(
        **{name: outputs[name] for name in Deployed.__dataclass_fields__ if name in outputs},
        deployment_time_seconds=round(time.monotonic() - started, 3),
        created_at=datetime.now(UTC),
    )


def _token() -> str:
    return uuid.uuid4().hex


def _stage(on_progress: OnProgress, stage: Stage, text: str) -> None:
    on_progress(Progress(stage, "stage", text))


def _lines(on_progress: OnProgress, stage: Stage) -> Callable[[str], None]:
    return lambda line: on_progress(Progress(stage, "log", line))


def _ignore(_: str) -> None:
    return
