"""Answers that are not predictions, as problem details (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson

from .messages import PROBLEM_JSON, Answer


class InvalidInput(ValueError):
    """The caller's data does not fit the model. `location`: a JSON pointer (RFC 6901) into the body, where known."""

    def __init__(self, detail: str, *, location: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.location = location


class NotSerializable(TypeError):
    """The model returned something that has no form in JSON."""


class HealthCheckFailed(Exception):
    """The model was loaded, and raised when it was to predict the row it is checked with."""


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    pointer: str | None = None,
    headers: Mapping[bytes, bytes] | None = None,
) -> Answer:
    """A problem details object. `code`: stable, for programs; `detail`: for people; `pointer`: the part of the body."""
    content: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if pointer is not None:
        content["pointer"] = pointer
    return Answer(orjson.dumps(content), status, PROBLEM_JSON, headers or {})
