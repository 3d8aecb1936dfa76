"""The API does what its OpenAPI description says, for requests made from it."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from pydantic import SecretStr
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import positive_data_acceptance

from asgard.settings import Settings

from .fake_platform import FakePlatform, running

TOKEN = "s3cret"
load_all_checks()


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    guarded = Settings(data_dir=tmp_path_factory.mktemp("data"), api_token=SecretStr(TOKEN))
    with running(guarded, FakePlatform()) as server:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        ("GET", "/", GenerationMode.POSITIVE),
        ("GET", "/health", GenerationMode.POSITIVE),
        ("GET", "/metrics", GenerationMode.POSITIVE),
        ("GET", "/mlops/models", GenerationMode.POSITIVE),
        ("GET", "/mlops/models/{name}", GenerationMode.POSITIVE),
        ("GET", "/mlops/status", GenerationMode.POSITIVE),
        ("POST", "/mlops/deploy", GenerationMode.POSITIVE),
        ("POST", "/mlops/deploy", GenerationMode.NEGATIVE),
    ],
)
def test_every_answer_is_a_documented_one(
    described: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    operation = described[path][method]

    @settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def conforms(case: schemathesis.Case[Any]) -> None:
        # What JSON Schema cannot say (base64 of UTF-8, PEP 508) is refused although the schema allows it.
        case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=[positive_data_acceptance])

    conforms()
