"""Errors as RFC 9457 problem details: one table from class to status, stable code and title.

https://www.rfc-editor.org/rfc/rfc9457
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from .. import errors
from ..answers import FieldError, Problem

MEDIA_TYPE: Final = "application/problem+json"

_log = structlog.get_logger("asgard.api")


class InvalidFields(errors.AsgardError):
    """Fields of the request are wrong; `errors` says which."""

    def __init__(self, found: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in found[:5]))
        self.errors = list(found)


class UnsupportedContent(errors.AsgardError):
    """The body is not declared as plain `application/json`."""


class HostNotAllowed(errors.AsgardError):
    """The Host header names another machine, which is what DNS rebinding looks like."""


class NotFound(errors.AsgardError):
    """Nothing is at this path."""


class MethodNotAllowed(errors.AsgardError):
    """The path is there, and not for this method."""


class InternalError(errors.AsgardError):
    """A defect. `reference`: what to look for in the log."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"Something went wrong inside Asgard. The log of `asgard serve` says more under {reference}.")
        self.reference = reference


@dataclass(frozen=True)
class Row:
    """How a class of errors is answered. `code` never changes: programs compare it."""

    status: int
    code: str
    title: str


TABLE: Final[Mapping[type[errors.AsgardError], Row]] = {
    errors.InvalidRequest: Row(422, "invalid_request", "The request is not valid"),
    InvalidFields: Row(422, "invalid_request", "The request is not valid"),
    errors.RequirementsConflict: Row(422, "requirements_conflict", "The requirements do not fit together"),
    errors.EnvironmentUnavailable: Row(503, "environment_unavailable", "The environment could not be made"),
    errors.DiskFull: Row(507, "disk_full", "The disk is full"),
    errors.ScriptFailed: Row(422, "script_failed", "The script failed"),
    errors.ScriptOutOfMemory: Row(422, "script_out_of_memory", "The script used too much memory"),
    errors.NoModelLogged: Row(422, "no_model_logged", "The script logged no model"),
    errors.ScriptTimeout: Row(504, "script_timeout", "The script ran for too long"),
    errors.DeployInProgress: Row(409, "deploy_in_progress", "The model is being changed"),
    errors.TooManyDeploys: Row(429, "too_many_deploys", "Too many deploys"),
    errors.ModelNotFound: Row(404, "model_not_found", "There is no such model"),
    errors.TrackingUnavailable: Row(503, "tracking_unavailable", "MLflow is not available"),
    errors.EngineMissing: Row(503, "engine_missing", "The Pulumi CLI is missing"),
    errors.InfrastructureFailed: Row(502, "infrastructure_failed", "The model could not be brought up"),
    errors.InfrastructureTimeout: Row(504, "infrastructure_timeout", "The model did not become healthy in time"),
    errors.RequestTooLarge: Row(413, "request_too_large", "The request is too large"),
    errors.Unauthorized: Row(401, "unauthorized", "A bearer token is needed"),
    UnsupportedContent: Row(415, "unsupported_content", "The body must be plain application/json"),
    HostNotAllowed: Row(403, "host_not_allowed", "The Host header is not this machine's"),
    NotFound: Row(404, "not_found", "There is nothing here"),
    MethodNotAllowed: Row(405, "method_not_allowed", "The method is not allowed here"),
    InternalError: Row(500, "internal_error", "Something went wrong inside Asgard"),
    errors.AsgardError: Row(500, "internal_error", "Something went wrong inside Asgard"),
}


_OPTIONAL: Final = ("errors", "stage", "log_tail", "run_id", "reason", "undo", "retry_after", "reference")


def row(error: type[errors.AsgardError]) -> Row:
    """The row of a class, or of its nearest base that has one."""
    return next(TABLE[base] for base in error.__mro__ if base in TABLE)


def problem(error: BaseException) -> Problem:
    """The problem that an error is told as.

    What is no AsgardError is a defect: logged with its traceback, told without it.
    """
    if not isinstance(error, errors.AsgardError):
        reference = str(structlog.contextvars.get_contextvars().get("request_id", "-"))
        _log.error("internal error", reference=reference, exc_info=error)
        error = InternalError(reference)
    found = row(type(error))
    optional: dict[str, Any] = {name: value for name in _OPTIONAL if (value := getattr(error, name, None))}
    if isinstance(error, errors.InvalidRequest):
        optional["errors"] = [FieldError(field=error.field, message=error.message)]
    return Problem(
        type=f"urn:asgard:error:{found.code}",
        title=found.title,
        status=found.status,
        detail=error.message,
        code=found.code,
        **optional,
    )


def problem_json(told: Problem) -> bytes:
    """ASCII only: lines of a script's output may hold what UTF-8 cannot encode."""
    return json.dumps(told.model_dump(exclude_none=True)).encode("ascii")


def problem_response(error: BaseException, headers: Mapping[str, str] | None = None) -> Response:
    told = problem(error)
    response = Response(problem_json(told), told.status, headers, MEDIA_TYPE)
    if told.retry_after is not None:
        response.headers["Retry-After"] = str(told.retry_after)
    if isinstance(error, errors.Unauthorized):
        response.headers["WWW-Authenticate"] = 'Bearer realm="asgard"'
    if isinstance(error, errors.RequestTooLarge):
        response.headers["Connection"] = "close"  # what is left of the body is not read
    return response


def install(app: FastAPI) -> None:
    """Answer every error of a route, and of the routing itself, with a problem."""

    async def on_asgard_error(_: Request, error: Exception) -> Response:
        return problem_response(error)

    async def on_http_exception(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        match error.status_code:
            case HTTPStatus.NOT_FOUND:
                return problem_response(NotFound("There is nothing at this address. GET / lists what there is."))
            case HTTPStatus.METHOD_NOT_ALLOWED:
                allowed = (error.headers or {}).get("Allow", "")
                return problem_response(MethodNotAllowed(f"Use {allowed} here."), error.headers)
        return problem_response(error)

    async def on_disconnect(_: Request, __: Exception) -> Response:
        return Response(status_code=HTTPStatus.BAD_REQUEST)  # the body never came whole; nobody hears this

    app.add_exception_handler(errors.AsgardError, on_asgard_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
