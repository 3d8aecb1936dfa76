"""From the body of a POST to a request for the platform, or to the list of what is wrong with it."""

import difflib
from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ..answers import FieldError
from ..platform.requests import DeploymentChanges, DeployRequest
from .errors import InvalidFields
from .schemas import DeployBody, DeploymentConfigBody

ERRORS_MAX: Final = 20
"""Wrong fields that an answer lists; the caller puts those right first."""


def parse(body: bytes) -> DeployRequest:
    """Raises InvalidFields."""
    try:
        posted = DeployBody.model_validate_json(body)
    except ValidationError as error:
        raise InvalidFields(_field_errors(error)) from None
    config = posted.deployment_config or DeploymentConfigBody()
    return DeployRequest(
        script=posted.script_content,
        script_name=posted.script_name,
        experiment_name=posted.experiment_name,
        model_name=posted.model_name,
        requirements=tuple(posted.requirements),
        environment_vars=posted.environment_vars,
        deployment_config=DeploymentChanges(config.replicas, config.memory_limit, config.cpu_limit),
        tags=posted.tags,
    )


_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is required",
    "string_type": "must be a string, in quotes",
    "bytes_type": "must be a string, in quotes",
    "int_type": "must be an integer, without quotes or a fraction",
    "list_type": "must be a list of strings",
    "dict_type": "must be an object of strings",
    "model_type": "must be an object",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_long": "has too many items; at most {max_length} are allowed",
    "string_too_long": "has too many characters; at most {max_length} are allowed",
    "json_invalid": "is not valid JSON: {error}",
}
"""By pydantic's type of error; its own messages say what is wrong, and not always how to put it right."""

_PATHS: Final[Mapping[str, str]] = {
    **{name: name for name in DeployBody.model_fields},
    **{name: f"deployment_config.{name}" for name in DeploymentConfigBody.model_fields},
}
"""Of all fields, by name: a field may also be in the wrong object."""


def _field_errors(error: ValidationError) -> list[FieldError]:
    found = error.errors(include_url=False, include_input=False)
    return [FieldError(field=_path(one["loc"]), message=_message(one)) for one in found[:ERRORS_MAX]]


def _message(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(error["loc"][-1])[:100], _PATHS, n=1)
        return "is not a field; " + (
            f"did you mean {_PATHS[close[0]]}?" if close else f"the fields are {', '.join(_PATHS.values())}"
        )
    return _MESSAGES[kind].format(**context) if kind in _MESSAGES else error["msg"]


def _path(location: tuple[int | str, ...]) -> str:
    """As in `deployment_config.replicas` or `requirements[2]`; `body` for the whole."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":  # pydantic's mark for the key of an object, whose name is before it
            path += f".{part[:100]}" if path else part[:100]
    return path or "body"
