"""What can go wrong, as exceptions. Those that the API or a model tells carry its problem object (RFC 9457)."""

from collections.abc import Mapping
from typing import Any, Final

from ..answers import Problem


class ClientError(Exception):
    """Root. `message`: what failed, for people. All can be copied and pickled, as pools of processes do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        # Without `__init__`, which takes another number of things in some of them than `args` holds.
        return type(self).__new__, (type(self), *self.args), self.__dict__


class Unreachable(ClientError):
    """Nothing answers at the address, not in time, or the connection broke."""


class NotAsgard(ClientError):
    """What answers at the address is neither the API nor a model of it, a proxy's error page for one."""


class NotServing(ClientError):
    """The model is registered, and nothing serves it."""


class OutOfSight(ClientError):
    """The API took the deploy, and the connection ended before the deploy had.

    A server that still runs finishes it; one that was stopped puts back what was, at its next start.
    """

    def __init__(self, model: str, why: str) -> None:
        super().__init__(f"The deploy of {model!r} is out of sight: {why}")
        self.model = model
        self.why = why


class ModelProblem(Problem):
    """A model server's problem. `pointer`: the part of the body that is wrong, a JSON pointer (RFC 6901)."""

    pointer: str | None = None


class ProblemAnswered(ClientError):
    """The answer was a problem; of this class itself where its code has none of its own."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class InvalidRequest(ProblemAnswered):
    """Fields of the request are wrong: `problem.errors`."""


class RequestTooLarge(ProblemAnswered):
    """The body passes the limit of the API, or of the model server."""


class AuthorizationFailed(ProblemAnswered):
    """The token is missing or wrong, or the API does not answer under this host name."""


class RequirementsConflict(ProblemAnswered):
    """The requirements do not fit together."""


class ScriptFailed(ProblemAnswered):
    """The script failed: `problem.log_tail` has its last lines, `problem.run_id` its run in MLflow."""


class ScriptOutOfMemory(ScriptFailed):
    """The script used more memory than it may."""


class ScriptTimeout(ScriptFailed):
    """The script ran longer than it may."""


class NoModelLogged(ScriptFailed):
    """The script ended well and logged no model."""


class InfrastructureFailed(ProblemAnswered):
    """The model was trained and could not be brought up: `problem.reason`, `problem.undo`."""


class InfrastructureTimeout(InfrastructureFailed):
    """The model did not become healthy in time."""


class ModelNotFound(ProblemAnswered):
    """There is no such model."""


class DeployInProgress(ProblemAnswered):
    """Another operation on the model is under way. Worth trying again in `problem.retry_after` seconds."""


class TooManyDeploys(ProblemAnswered):
    """All places for deploys are taken. Worth trying again in `problem.retry_after` seconds."""


class Unavailable(ProblemAnswered):
    """Something that the API stands on is not there now: MLflow, a package index, the engine, space on the disk."""


class InvalidData(ProblemAnswered):
    """The rows do not fit the model; `problem.pointer` says where."""

    problem: ModelProblem


class ModelFailed(ProblemAnswered):
    """The model raised, or answered what has no form in JSON."""


class Overloaded(ProblemAnswered):
    """More requests wait than the model answers in time. Worth trying again in `problem.retry_after` seconds."""


BY_CODE: Final[Mapping[str, type[ProblemAnswered]]] = {
    "invalid_request": InvalidRequest,
    "unsupported_content": InvalidRequest,
    "request_too_large": RequestTooLarge,
    "unauthorized": AuthorizationFailed,
    "host_not_allowed": AuthorizationFailed,
    "requirements_conflict": RequirementsConflict,
    "script_failed": ScriptFailed,
    "script_out_of_memory": ScriptOutOfMemory,
    "script_timeout": ScriptTimeout,
    "no_model_logged": NoModelLogged,
    "infrastructure_failed": InfrastructureFailed,
    "infrastructure_timeout": InfrastructureTimeout,
    "model_not_found": ModelNotFound,
    "deploy_in_progress": DeployInProgress,
    "too_many_deploys": TooManyDeploys,
    "tracking_unavailable": Unavailable,
    "environment_unavailable": Unavailable,
    "engine_missing": Unavailable,
    "disk_full": Unavailable,
    "not_json": InvalidData,
    "missing_data": InvalidData,
    "unknown_field": InvalidData,
    "invalid_data": InvalidData,
    "too_large": RequestTooLarge,
    "model_failed": ModelFailed,
    "overloaded": Overloaded,
    "answer_not_serializable": ModelFailed,
}
"""By the stable code of a problem. Codes that are not here are of paths and methods that the client does not call."""


def answered(problem: Problem) -> ProblemAnswered:
    """The exception of a problem."""
    return BY_CODE.get(problem.code, ProblemAnswered)(problem)
