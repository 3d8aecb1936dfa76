"""What went wrong, told on the standard error: what failed, why, the last lines of its log, what to do."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import typer

from ..errors import AsgardError
from ..platform.files import full_disk_told
from .output import console, note, printable

FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
NOT_FOUND: Final = 4
BUSY: Final = 5
INTERRUPTED: Final = 130

_OPTIONS: Final = {
    "script_content": "SCRIPT",
    "script_name": "SCRIPT",
    "model_name": "--name",
    "requirements": "-r or --requirements-file",
    "experiment_name": "--experiment",
    "environment_vars": "--env",
    "tags": "--tag",
    "deployment_config.replicas": "--replicas",
    "deployment_config.memory_limit": "--memory",
    "deployment_config.cpu_limit": "--cpu",
}
"""Field of the request -> where a user of the command line gave it."""

_UNDO: Final = {
    "complete": "Everything is as it was before.",
    "incomplete": "Not everything could be put back yet: the next deploy, or start of `asgard serve`, completes it.",
}

_TODO: Final = {
    "model_not_found": "`asgard models` lists the models that there are.",
    "unauthorized": "Set ASGARD_API_TOKEN to the token that the API was started with.",
    "tracking_unavailable": "`asgard status` tells how MLflow is.",
    "script_out_of_memory": "Let the script use less memory, or raise ASGARD_TRAINING_MEMORY_LIMIT for `asgard serve`.",
    "script_timeout": "Let the script end sooner, or raise ASGARD_TRAINING_TIMEOUT_SECONDS for `asgard serve`.",
}


class CommandFailed(AsgardError):
    """A failure of the command itself. `title`: what failed; `message`: why, and what to do."""

    def __init__(self, title: str, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.title = title
        self.exit_code = exit_code


class ProblemAnswered(AsgardError):
    """The API answered with a problem (RFC 9457)."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail", "")))
        self.problem = problem


@contextmanager
def told() -> Iterator[None]:
    """Tell an AsgardError that comes out of the block, and end with its exit code. Never a traceback."""
    try:
        with full_disk_told():
            yield
    except CommandFailed as error:
        _show({"title": error.title, "detail": error.message})
        raise typer.Exit(error.exit_code) from None
    except ProblemAnswered as error:
        _show(error.problem)
        raise typer.Exit(exit_code(error.problem)) from None
    except AsgardError as error:
        from ..api.errors import problem  # FastAPI's import takes half a second

        told = problem(error).model_dump(exclude_none=True)
        if told["code"] == "internal_error":  # an AsgardError is none; the API just has no name for it
            told["title"] = "It failed"
        _show(told)
        raise typer.Exit(exit_code(told)) from None
    except KeyboardInterrupt:
        note("Interrupted.")
        raise typer.Exit(INTERRUPTED) from None


def exit_code(problem: Mapping[str, Any]) -> int:
    """The exit code for a problem."""
    match problem.get("status"), problem.get("code"):
        case _, "invalid_request":
            return USAGE
        case 404, _:
            return NOT_FOUND
        case 409 | 429, _:
            return BUSY
    return FAILED


def show_defect(error: Exception) -> None:
    """Tell a failure that nobody foresaw, and where it happened, for whoever reports it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    detail = (
        f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno}). This is a defect; please report it."
    )
    _show({"title": "The command broke", "detail": detail})


def _show(problem: Mapping[str, Any]) -> None:
    stage = f" at the stage {problem['stage']}" if problem.get("stage") else ""
    reason = f" ({problem['reason']})" if problem.get("reason") else ""
    err = console(stderr=True)
    err.print(printable(f"Error: {problem.get('title', 'the request failed')}{stage}{reason}"), style="bold red")
    if problem.get("errors"):
        for field in problem["errors"]:
            note(f"  {printable(_where(str(field.get('field'))))}: {printable(str(field.get('message')))}")
    else:
        for line in str(problem.get("detail", "")).splitlines():
            note(f"  {printable(line)}")
    if problem.get("log_tail"):
        from rich.text import Text

        note("Last lines of its log:")
        for line in problem["log_tail"]:
            err.print(Text.assemble("  | ", Text.from_ansi(str(line))))
    for line in _todo(problem):
        note(printable(line))


def _todo(problem: Mapping[str, Any]) -> Iterator[str]:
    if problem.get("run_id"):
        yield f"The run {problem['run_id']} in MLflow keeps its log."
    if problem.get("undo") in _UNDO:
        yield _UNDO[problem["undo"]]
    if problem.get("code") in _TODO:
        yield _TODO[problem["code"]]
    if problem.get("retry_after"):
        yield f"Try again in {problem['retry_after']} s."


def _where(field: str) -> str:
    """The option for a field such as `tags.team` or `requirements[2]`, and the field."""
    known = next((name for name in sorted(_OPTIONS, key=len, reverse=True) if field.startswith(name)), None)
    return field if known is None else f"{_OPTIONS[known]} ({field})"
