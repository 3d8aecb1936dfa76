"""What can go wrong, as data. `api/errors.py` maps each class to a status and a stable code.

Messages are for the person who made the call: what failed and what to do next; never a secret, never our traceback.
"""

from collections.abc import Sequence

from .progress import Stage


class AsgardError(Exception):
    """Root. `message`: what failed and what to do.

    `stage`: where in a deploy. `log_tail`: last lines of the part that failed. `undo`: "complete" when everything is as
    before, "incomplete" when the next deploy or API start will finish putting it back, None where nothing was touched.
    """

    def __init__(self, message: str, *, stage: Stage | None = None, log_tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.stage = stage
        self.log_tail = list(log_tail)
        self.undo: str | None = None


class InvalidRequest(AsgardError):
    """A field of the request is wrong. `field`: its path, as in `deployment_config.replicas`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class RequestTooLarge(AsgardError):
    """The request body passes `ASGARD_MAX_REQUEST_BYTES`."""


class Unauthorized(AsgardError):
    """No bearer token, or a wrong one."""


class ModelNotFound(AsgardError):
    """No such registered model (or, for teardown, no such stack)."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no model named {name!r}. GET /mlops/models lists the ones there are.")
        self.name = name


class DeployInProgress(AsgardError):
    """Another deploy, rollback or teardown holds this model's lock."""

    retry_after = 15
    """Seconds."""

    def __init__(self, model: str) -> None:
        super().__init__(f"Another operation on {model!r} is under way. Try again when it has ended.")
        self.model = model


class TooManyDeploys(AsgardError):
    """All places for deploys are taken and so is the queue."""

    retry_after = 30
    """Seconds."""


class RequirementsConflict(AsgardError):
    """No set of versions satisfies the posted requirements together with what tracking and serving need."""


class EnvironmentUnavailable(AsgardError):
    """The environment could not be made, and not for its requirements: no package index, Python, disk or time.

    The same request may succeed later.
    """

    retry_after = 30
    """Seconds."""


class DiskFull(AsgardError):
    """No space, or no quota, is left on a disk that Asgard writes to."""


class ScriptFailed(AsgardError):
    """The script raised, exited with a code other than 0, was not valid Python, or passed a limit other than time.

    `run_id`: the run it left in MLflow, if it made one.
    """

    def __init__(self, message: str, *, log_tail: Sequence[str] = (), run_id: str | None = None) -> None:
        super().__init__(message, stage="training", log_tail=log_tail)
        self.run_id = run_id


class ScriptOutOfMemory(ScriptFailed):
    """The script's process tree passed `ASGARD_TRAINING_MEMORY_LIMIT`."""


class ScriptTimeout(ScriptFailed):
    """The script ran longer than `ASGARD_TRAINING_TIMEOUT_SECONDS`."""


class NoModelLogged(ScriptFailed):
    """The script ended well and logged no MLflow model."""


class TrackingUnavailable(AsgardError):
    """MLflow is starting, cannot be reached, or refused."""

    retry_after = 5
    """Seconds."""


class InfrastructureFailed(AsgardError):
    """The stack could not be brought up or down.

    `reason`: one word where one is known (`OOMKilled`, `PortTaken`, `Crashed`, ...).
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        log_tail: Sequence[str] = (),
    ) -> None:
        super().__init__(message, stage="infrastructure", log_tail=log_tail)
        self.reason = reason


class InfrastructureTimeout(InfrastructureFailed):
    """The model did not become healthy within `ASGARD_HEALTH_TIMEOUT_SECONDS`."""


class EngineMissing(AsgardError):
    """No Pulumi CLI was found and none could be downloaded or built."""
