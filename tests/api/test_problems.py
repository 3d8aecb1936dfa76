"""The table of errors, and what OpenAPI says about it."""

import inspect
from typing import Any

import httpx
import pytest

from asgard import errors
from asgard.api import errors as api_errors
from asgard.api.app import create_app
from asgard.api.auth import PUBLIC
from asgard.api.errors import TABLE, problem, row
from asgard.settings import Settings

from .fake_platform import EXAMPLE, FakePlatform, Running

CODES = {found.code for found in TABLE.values()}
OUTSIDE_ROUTES = {"not_found", "method_not_allowed"}


def error_classes(module: object) -> list[type[errors.AsgardError]]:
    return [found for _, found in inspect.getmembers(module, inspect.isclass) if issubclass(found, errors.AsgardError)]


@pytest.mark.parametrize("error", [*error_classes(errors), *error_classes(api_errors)])
def test_every_class_of_errors_has_its_own_row(error: type[errors.AsgardError]) -> None:
    assert error in TABLE


def test_a_code_stands_for_one_status_and_one_title() -> None:
    assert len({(found.code, found.status, found.title) for found in TABLE.values()}) == len(CODES)


def test_a_class_without_a_row_is_told_as_its_base() -> None:
    class PortTaken(errors.InfrastructureFailed): ...

    assert row(PortTaken) is TABLE[errors.InfrastructureFailed]


def test_an_invalid_request_of_the_platform_names_its_field() -> None:
    told = problem(errors.InvalidRequest("model_name", "is taken")).model_dump(exclude_none=True)
    assert told["errors"] == [{"field": "model_name", "message": "is taken"}]


@pytest.fixture(scope="module")
def openapi(tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), api_token="secret")
    return create_app(settings, FakePlatform()).openapi()  # type: ignore[arg-type]  # a stand-in


def documented(operation: Any) -> dict[str, set[str]]:
    return {
        status: set(response["content"]["application/problem+json"]["examples"])
        for status, response in operation["responses"].items()
        if status != "200"
    }


def operations(openapi: Any) -> dict[str, Any]:
    return {f"{method} {path}": found for path, item in openapi["paths"].items() for method, found in item.items()}


def test_openapi_documents_the_codes_of_the_table_and_no_others(openapi: Any) -> None:
    told = {
        (int(status), code)
        for found in operations(openapi).values()
        for status, codes in documented(found).items()
        for code in codes
    }
    assert told == {(found.status, found.code) for found in TABLE.values() if found.code not in OUTSIDE_ROUTES}
    assert set(openapi["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]) == CODES


def test_openapi_holds_the_contract_and_nothing_else(openapi: Any) -> None:
    assert set(operations(openapi)) == {
        "get /",
        "get /health",
        "get /metrics",
        "post /mlops/deploy",
        "get /mlops/models",
        "get /mlops/models/{name}",
        "get /mlops/status",
    }
    assert documented(operations(openapi)["get /mlops/models/{name}"])["404"] == {"model_not_found"}
    assert "ValidationError" not in str(openapi)


def test_openapi_shows_the_defaults_that_apply_at_creation(openapi: Any) -> None:
    fields = openapi["components"]["schemas"]["DeploymentConfigBody"]["properties"]
    assert {name: field["default"] for name, field in fields.items()} == {
        "replicas": 1,
        "memory_limit": "2Gi",
        "cpu_limit": "1000m",
    }


def test_every_reference_in_openapi_leads_somewhere(openapi: Any) -> None:
    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            return {node["$ref"]} if "$ref" in node else set().union(*map(references, node.values()))
        return set().union(*map(references, node)) if isinstance(node, list) else set()

    schemas = openapi["components"]["schemas"]
    found = references(openapi)
    assert found
    assert {reference.removeprefix("#/components/schemas/") for reference in found} <= set(schemas)


def test_openapi_asks_for_the_token_wherever_it_is_needed(openapi: Any) -> None:
    asks = {name for name, operation in operations(openapi).items() if operation.get("security") == [{"bearer": []}]}
    assert asks == {name for name in operations(openapi) if name.removeprefix("get ") not in PUBLIC}


def test_a_wrong_request_is_a_problem_with_all_its_members(server: Running, platform: FakePlatform) -> None:
    answer = httpx.post(f"{server.url}/mlops/deploy", json=EXAMPLE | {"model_name": "Iris", "replica": 1})
    told = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(told) == {"type", "title", "status", "detail", "code", "errors"}
    assert (answer.status_code, told["status"], told["code"]) == (422, 422, "invalid_request")
    assert [error["field"] for error in told["errors"]] == ["model_name", "replica"]
    assert all(f"{error['field']}: {error['message']}" in told["detail"] for error in told["errors"])
    assert platform.requests == []
