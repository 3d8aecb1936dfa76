"""What the server tells about itself, made from what is known of the model."""

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from asgard.serving import handlers
from asgard.serving.loaded import LoadedModel
from asgard.serving.messages import Answer, Request

from .models import FRAME, PEOPLE, X
from .predicting import predict


@pytest.fixture(scope="module")
def get(loaded: Callable[[str], LoadedModel]) -> Callable[[str, str], Answer]:
    def ask(name: str, path: str) -> Answer:
        server = handlers.operations(loaded(name))[path].server
        assert server is not None
        return server(Request(b""))

    return ask


@pytest.fixture(scope="module")
def document(get: Callable[[str, str], Answer]) -> Callable[[str], Any]:
    return lambda name: json.loads(get(name, "/openapi.json").body)


def body_schema(document: Any) -> Any:
    return document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]


@pytest.mark.parametrize("name", ["specification", "frame", "columns", "example", "tensor", "mixed", "times", "texts"])
def test_every_model_has_a_valid_document(document: Callable[[str], Any], name: str) -> None:
    found = document(name)
    validate(found)
    assert (found["info"]["title"], found["info"]["version"]) == ("iris", "1")
    assert {"/predict", "/health", "/metadata", "/metrics", "/docs", "/openapi.json"} <= found["paths"].keys()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("specification", X.tolist()),
        ("columns", X.tolist()),
        ("columns", FRAME.to_dict("records")),
        ("columns", FRAME.to_dict("list")),
        ("columns", [[None, 1, 2, 3, 4]]),
        ("tensor", X.tolist()),
        ("mixed", PEOPLE.to_dict("records")),
        ("mixed", PEOPLE.values.tolist()),
        ("times", ["2026-01-01"]),
        ("times", [["2026-01-01"]]),
    ],
)
def test_the_schema_allows_what_the_model_takes(document: Callable[[str], Any], name: str, data: Any) -> None:
    Draft202012Validator(body_schema(document(name))).validate(orjson.loads(orjson.dumps({"data": data})))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("columns", []),
        ("columns", [[1, 2, 3]]),
        ("columns", [[1, 2, 3, 4, "x"]]),
        ("columns", [{"a": 1}]),
        ("columns", {"a": [1]}),
        ("tensor", [[1, 2]]),
        ("mixed", [[20.5, 1.5, "Oslo", True]]),
    ],
)
def test_the_schema_refuses_what_the_model_refuses(document: Callable[[str], Any], name: str, data: Any) -> None:
    assert not Draft202012Validator(body_schema(document(name))).is_valid({"data": data})


@pytest.mark.parametrize("name", ["example", "columns", "tensor"])
def test_the_example_is_one_that_the_model_answers(
    document: Callable[[str], Any], loaded: Callable[[str], LoadedModel], name: str
) -> None:
    schema = body_schema(document(name))
    [example] = schema["examples"]
    Draft202012Validator(schema).validate(example)
    assert predict(loaded(name), orjson.dumps(example)).status == 200


def test_the_page_shows_the_example_and_loads_nothing_from_elsewhere(get: Callable[[str, str], Answer]) -> None:
    answer = get("example", "/docs")
    assert answer.content_type == b"text/html; charset=utf-8"
    page = answer.body.decode()
    assert "&quot;data&quot;" in page
    assert "iris-v1-abcdef" in page
    assert "//" not in page.replace("<!doctype", "")
