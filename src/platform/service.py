"""The platform, put together: as the API runs it, and as a command uses it while no API runs."""

import importlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress

import grpc
import structlog

from ..errors import AsgardError, DeployInProgress, TrackingUnavailable
from ..progress import OnProgress, Progress
from ..settings import Settings
from ..stacks.provider import image, local_server, servicer
from ..stacks.provider.local_server import LocalRuntime
from . import (
    cache,
    deploy,
    engine_install,
    journal,
    mlflow_server,
    model_images,
    registry,
    releases,
    serving_tags,
    supervisor,
    tracking,
)
from .admission import Admission
from .deploy import Deployed, Tools
from .engine import Engine, Watches
from .features import FeastProbe
from .locks import model_lock
from .mlflow_server import EmbeddedMlflow
from .registry import ModelVersion, RegisteredModel
from .requests import DeployRequest
from .script_templates import ScriptTemplates
from .status import PlatformStatus, StatusMonitor
from .tracking import Tracking

READY_SECONDS = 900.0
"""How long a deploy waits for an API that still starts: a Pulumi CLI may have to be built first."""

STARTING_SECONDS = 30.0
"""How long reading waits for an MLflow that still starts."""

PUT_RIGHT_SECONDS = 15.0
"""Between attempts to undo what an earlier process left, while MLflow or the engine does not let it."""

PRUNE_SECONDS = 86400.0
"""Between looks for what the cache folder may lose."""

_log = structlog.get_logger("asgard.platform")


class Platform:
    """Everything behind the API. `start` returns at once; what is slow to start does so in the background."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._mlflow = EmbeddedMlflow(settings) if settings.mlflow_tracking_uri is None else None
        self._features = FeastProbe(settings)
        self._tools: Future[Tools] = Future()
        self._status = StatusMonitor(settings, self._features, self._service_trouble)
        self._stopped = threading.Event()
        self._provider: grpc.Server | None = None

    def start(self) -> None:
        """Start MLflow, the feature store's probe and the engine, and finish what an earlier life left."""
        if self._mlflow is not None:
            self._mlflow.start()
        tracking.warm_up()
        self._features.start()
        self._status.start()
        threading.Thread(target=self._prepare, name="prepare", daemon=True).start()
        threading.Thread(target=self._prune, name="prune", daemon=True).start()

    def stop(self) -> None:
        """End what `start` started. The models go on serving."""
        self._stopped.set()
        self._status.stop()
        self._features.stop()
        if self._mlflow is not None:
            self._mlflow.stop()
        if self._tools.done() and self._tools.exception() is None:
            self._tools.result().templates.close()

    def deploy(self, request: DeployRequest, on_progress: OnProgress) -> Deployed:
        """Deploy a model; blocks, for minutes where its environment is new."""
        if not self._tools.done():
            on_progress(Progress("queue", "stage", "Waiting for the platform to start"))
        try:
            tools = self._tools.result(READY_SECONDS)
        except FutureTimeout as error:
            raise TrackingUnavailable("Asgard is still starting. GET /mlops/status says what is missing.") from error
        return deploy.deploy(tools, request, on_progress)

    def models(self) -> list[RegisteredModel]:
        """All registered models."""
        return registry.list_models(self._reachable())

    def model(self, name: str) -> tuple[RegisteredModel, list[ModelVersion]]:
        """One registered model and its versions, newest first. Raises ModelNotFound."""
        return registry.get_model(self._reachable(), name)

    def status(self) -> PlatformStatus:
        """How the parts are; at once."""
        return self._status.read()

    def _reachable(self) -> Tracking:
        """The MLflow in use, waited for while it starts. Raises TrackingUnavailable soon where it does not answer."""
        health = self._status.read().mlflow_status
        if health == "starting" and self._mlflow is not None:
            self._mlflow.wait(STARTING_SECONDS)
        elif health == "unhealthy" and (trouble := mlflow_server.check(self._settings)) is not None:
            raise TrackingUnavailable(f"MLflow cannot be used: {trouble}. GET /mlops/status says when it is back.")
        return mlflow_server.tracking(self._settings)

    def _prepare(self) -> None:
        watches = Watches()
        runtime = _local_runtime(self._settings, watches)
        threading.Thread(
            target=supervisor.watch, args=(self._settings, runtime, self._stopped), name="supervisor", daemon=True
        ).start()
        try:
            if self._settings.target == "kubernetes":
                # Slow, and not safe where two deploys do it at once.
                importlib.import_module("asgard.stacks.kubernetes")
            tools, self._provider = _assemble(self._settings, runtime, watches, _log.info)
        except Exception as error:
            _log.exception("Asgard cannot deploy")
            self._tools.set_exception(error)
            return
        if self._mlflow is not None:
            with suppress(TrackingUnavailable):  # the status says so
                self._mlflow.wait(mlflow_server.START_SECONDS)
        self._tools.set_result(tools)
        while not _put_right(tools) and not self._stopped.wait(PUT_RIGHT_SECONDS):
            continue

    def _prune(self) -> None:
        while True:
            try:
                cache.prune(self._settings.cache_dir)
            except OSError:
                _log.exception("the cache folder could not be pruned")
            if self._stopped.wait(PRUNE_SECONDS):
                return

    def _service_trouble(self) -> str | None:
        """Why nothing can be deployed; None: it can. "starting" while that is so."""
        if not self._tools.done():
            return "starting"
        error = self._tools.exception()
        return None if error is None else str(error)


@contextmanager
def offline(settings: Settings, on_log: Callable[[str], None]) -> Iterator[Tools]:
    """What a command needs to change a model's stack, whether the API runs or not."""
    with mlflow_server.running(settings), _assembled(settings, on_log) as tools:
        yield tools


@contextmanager
def offline_engine(settings: Settings, on_log: Callable[[str], None]) -> Iterator[Engine]:
    """What a command needs to change a stack that is no model's."""
    with _assembled(settings, on_log) as tools:
        yield tools.engine


@contextmanager
def _assembled(settings: Settings, on_log: Callable[[str], None]) -> Iterator[Tools]:
    watches = Watches()
    tools, provider = _assemble(settings, _local_runtime(settings, watches), watches, on_log)
    try:
        yield tools
    finally:
        provider.stop(None)


def _local_runtime(settings: Settings, watches: Watches) -> LocalRuntime:
    return LocalRuntime(
        data_dir=settings.data_dir,
        health_timeout_seconds=settings.health_timeout_seconds,
        materialize=lambda model, release: releases.materialize(
            settings, mlflow_server.tracking(settings), model, release, lambda line: watches.log(model, line)
        ),
        on_log=watches.log,
        on_failure=watches.failed,
    )


def _assemble(
    settings: Settings, runtime: LocalRuntime, watches: Watches, on_log: Callable[[str], None]
) -> tuple[Tools, grpc.Server]:
    command = engine_install.find_or_install(settings, on_log)
    images = model_images.runtime(settings, lambda: mlflow_server.tracking(settings), watches.log, watches.failed)
    provider, port = servicer.serve(
        {local_server.TYPE: local_server.resource(runtime), image.TYPE: image.resource(images)}
    )
    engine = Engine(settings, command, {"asgard": port}, watches)
    admission = Admission(settings.max_concurrent_deploys, settings.max_queued_deploys)
    return Tools(settings, engine, admission, ScriptTemplates()), provider


def _put_right(tools: Tools) -> bool:
    """Undo the operations that died with an earlier process, and correct MLflow's tags; False: not all of it worked."""
    done = True
    for model in journal.unfinished(tools.settings.data_dir):
        with suppress(DeployInProgress), model_lock(tools.settings.data_dir, model):
            done = _recovered(tools, model) and done
    try:
        serving_tags.correct(tools.settings, tools.tracking, tools.engine)
    except AsgardError as error:
        _log.warning("the tags in MLflow could not be corrected yet", reason=error.message)
        done = False
    except Exception:
        _log.exception("the tags in MLflow could not be corrected yet")
        done = False
    return done


def _recovered(tools: Tools, model: str) -> bool:
    """Whether nothing is left to undo. Not so either where somebody else works on the stack just now."""
    try:
        deploy.recover(tools, model)
    except Exception:
        _log.exception("what an earlier operation left could not be undone yet", model=model)
        return False
    return True
