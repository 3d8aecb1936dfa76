"""Clients of the Open Inference Protocol that others made, against a server on a port."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pytest

from . import inference_clients
from .conftest import environment
from .http_server import serving
from .models import PEOPLE

CLIENTS = ("tritonclient[http]>=2.50", "open-inference-openapi>=2.0.0.1", "pydantic-open-inference>=1.3")
"""They get an environment of their own: the project has no use for what they need."""

Ask = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def ask(bundle: Callable[..., Path], test_cache: Path) -> Iterator[Ask]:
    """What a client of `inference_clients` got."""
    python = environment(test_cache, CLIENTS)
    with serving(bundle("people")) as url:

        def run(client: str) -> dict[str, Any]:
            command = [str(python), inference_clients.__file__, client, url]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
            assert done.returncode == 0, done.stderr
            found: dict[str, Any] = json.loads(done.stdout)
            return found

        yield run


@pytest.fixture(scope="module")
def expected(bundle: Callable[..., Path]) -> list[float]:
    original = mlflow.pyfunc.load_model(str(bundle("people") / "model"))
    found: list[float] = original.predict(PEOPLE.head(2)).tolist()
    return found


def test_tritons_client_asks_by_bytes_and_by_json(ask: Ask, expected: list[float]) -> None:
    predicted = ["float64", expected]
    assert ask("triton") == {
        "live": [True, True],
        "ready": [True, True, False],
        "extensions": ["binary_tensor_data"],
        "inputs": ["INT64", "FP64", "BYTES", "BOOL"],
        "bytes to bytes": predicted,
        "bytes to JSON": predicted,
        "JSON to bytes": predicted,
        "JSON to JSON": predicted,
        "all outputs": predicted,
        "version": predicted,
        "gzip": predicted,
        "another model": ["404", "There is no /v2/models/other/infer here."],
        "a column less": ["400", "Missing column 'city'."],
    }


def test_the_client_made_from_the_protocols_openapi_document_asks(ask: Ask, expected: list[float]) -> None:
    assert ask("openapi") == {
        "infer": ["7", "predict", expected],
        "platform": "mlflow_sklearn",
        "a column less": "Missing column 'member'.",
        "another model": ["error"],
    }


def test_a_client_with_typed_models_finds_the_metadata_as_it_wants_it_and_asks(ask: Ask, expected: list[float]) -> None:
    assert ask("pydantic") == {"ready": True, "infer": expected}
