"""While the API runs, every local model has its parent process: after a reboot, or when somebody ended it."""

from collections.abc import Mapping
from threading import Event

import structlog

from ..errors import AsgardError, DeployInProgress
from ..serving import control
from ..serving.desired import ApplyFailed
from ..settings import Settings
from ..stacks.provider import local_server
from ..stacks.provider.local_server import LocalRuntime
from . import secrets, stackfile
from .locks import model_lock

INTERVAL_SECONDS = 1.0

_log = structlog.get_logger("asgard.supervisor")


def watch(settings: Settings, runtime: LocalRuntime, stopped: Event) -> None:
    """Look after the parents until `stopped` is set."""
    while not stopped.wait(INTERVAL_SECONDS):
        restart_missing(settings, runtime)


def restart_missing(settings: Settings, runtime: LocalRuntime) -> None:
    """Start the parents that are missing; a model that cannot be started is logged and tried again next time."""
    for directory in local_server.directories(settings.data_dir):
        if control.status(directory) is not None:
            continue
        model = directory.name
        if control.hangs(directory):
            # Its workers may well serve; whoever deploys or destroys the model ends it.
            _log.warning("a model's parent does not answer", model=model)
            continue
        try:
            with model_lock(settings.data_dir, model):
                _log.info("starting a model again", model=model)
                local_server.restart(runtime, directory, _environment(settings, model))
        except DeployInProgress:
            continue
        except (AsgardError, ApplyFailed) as error:
            _log.error("a model could not be started again", model=model, error=str(error))
        except Exception:  # whatever it is, it must not end the watch over the other models
            _log.exception("a model could not be started again", model=model)


def _environment(settings: Settings, model: str) -> Mapping[str, str]:
    path = stackfile.path_of(settings.stacks_dir, model)
    content = stackfile.read(path, secrets.passphrase(settings))
    if content is None:
        _log.warning("a model without its stack file gets no environment variables", model=model, missing=str(path))
        return {}
    return content.environment
