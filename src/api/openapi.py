"""What /docs and /openapi.json say beyond what FastAPI reads from the routes: the posted body and the problems."""

from collections import defaultdict
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from ..answers import Problem
from ..errors import AsgardError
from .auth import PUBLIC
from .errors import MEDIA_TYPE, TABLE, row
from .schemas import DeployBody

_REF: Final = "#/components/schemas/{model}"

REQUEST_BODY: Final = {
    "required": True,
    "content": {"application/json": {"schema": {"$ref": _REF.format(model=DeployBody.__name__)}}},
}

EVENTS_EXAMPLE: Final = (
    'event: stage\ndata: {"stage": "training", "message": "Running train.py"}\n\n'
    'event: log\ndata: {"stage": "training", "line": "accuracy 0.97"}\n\n'
    ": heartbeat\n\n"
    'event: result\ndata: {"deployment_id": "iris-classifier-v1-3f9c1a", "status": "deployed", "...": "..."}\n\n'
)

_RETRY: Final = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
_CHALLENGE: Final = {"WWW-Authenticate": {"description": "The scheme, Bearer.", "schema": {"type": "string"}}}


def problems(*errors: type[AsgardError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for what a route may be answered with, from the table; an example for each code."""
    by_status: defaultdict[int, list[type[AsgardError]]] = defaultdict(list)
    for error in errors:
        by_status[row(error).status].append(error)
    return {status: _response(found) for status, found in sorted(by_status.items())}


def _response(errors: list[type[AsgardError]]) -> dict[str, Any]:
    rows = [row(error) for error in errors]
    examples = {
        row.code: {"value": {"type": f"urn:asgard:error:{row.code}", "title": row.title, "status": row.status,
                             "detail": "What failed and what to do.", "code": row.code}}
        for row in rows
    }  # fmt: skip
    response: dict[str, Any] = {
        "description": "; ".join(f"`{row.code}`: {row.title}" for row in rows),
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model=Problem.__name__)}, "examples": examples}},
    }
    if any(hasattr(error, "retry_after") for error in errors):
        response["headers"] = _RETRY
    if any(row.status == 401 for row in rows):
        response["headers"] = _CHALLENGE
    return response


def describe(app: FastAPI, *, needs_token: bool) -> None:
    """Make `app` tell the whole description."""
    codes = sorted({found.code for found in TABLE.values()})

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _describe(app, codes, needs_token=needs_token)
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]  # FastAPI's documented way


def _describe(app: FastAPI, codes: list[str], *, needs_token: bool) -> dict[str, Any]:
    described = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = described.setdefault("components", {})
    _, ours = models_json_schema([(DeployBody, "validation"), (Problem, "serialization")], ref_template=_REF)
    schemas = components["schemas"]
    schemas.update(ours["$defs"])
    schemas["Problem"]["properties"]["code"]["enum"] = codes
    # FastAPI lists its own validation error wherever there is a parameter; ours are all text, which cannot be wrong.
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            if method == "get":
                operation["responses"].pop("422", None)
            if needs_token and path not in PUBLIC:
                operation["security"] = [{"bearer": []}]
    if needs_token:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return described
