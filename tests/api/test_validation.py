"""What a deploy request may hold; every refusal names the field and the fix, and runs nothing."""

import base64
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils import validation as mlflow_validation
from pydantic_core import to_json

from asgard.api import validation
from asgard.api.errors import InvalidFields
from asgard.api.parsing import ERRORS_MAX, parse
from asgard.api.schemas import EXAMPLE_SCRIPT, DeployBody
from asgard.platform.requests import DeployRequest

from .fake_platform import EXAMPLE


def parsed(**fields: Any) -> DeployRequest:
    return parse(to_json(EXAMPLE | fields))


def refusals(body: bytes) -> list[tuple[str, str]]:
    with pytest.raises(InvalidFields) as caught:
        parse(body)
    return [(error.field, error.message) for error in caught.value.errors]


def refusal(**fields: Any) -> tuple[str, str]:
    (only,) = refusals(to_json(EXAMPLE | fields))
    return only


def encoded(script: bytes) -> str:
    return base64.b64encode(script).decode()


def test_the_example_of_the_documentation_is_valid() -> None:
    extra = DeployBody.model_config["json_schema_extra"]
    assert isinstance(extra, dict)
    request = parse(to_json(extra["example"]))
    assert request.script.decode() == EXAMPLE_SCRIPT
    assert request.requirements == ("mlflow", "scikit-learn==1.3.0")


@pytest.mark.parametrize("field", EXAMPLE)
def test_a_required_field_that_is_missing_or_null_is_named(field: str) -> None:
    missing = {name: value for name, value in EXAMPLE.items() if name != field}
    assert refusals(to_json(missing)) == [(field, "is required")]
    assert refusal(**{field: None})[0] == field


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"model_name": "\\ud800"}', "not valid JSON"),
        (b"[]", "must be an object"),
        (b"null", "must be an object"),
        (b'"text"', "must be an object"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused_as_a_whole(body: bytes, part: str) -> None:
    ((field, message),) = refusals(body)
    assert field == "body"
    assert part in message


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("model_nam", "model_name"),
        ("env_vars", "environment_vars"),
        ("requirement", "requirements"),
        ("replicas", "deployment_config.replicas"),
    ],
)
def test_an_unknown_field_gets_the_name_that_was_meant(name: str, suggestion: str) -> None:
    assert refusal(**{name: 1}) == (name, f"is not a field; did you mean {suggestion}?")


def test_an_unknown_field_like_no_other_gets_all_names() -> None:
    field, message = refusal(zzzzzz=1)
    assert field == "zzzzzz"
    assert all(name in message for name in DeployBody.model_fields)


def test_an_unknown_field_of_the_deployment_config_is_named_by_its_path() -> None:
    assert refusal(deployment_config={"memory": "2Gi"}) == (
        "deployment_config.memory",
        "is not a field; did you mean deployment_config.memory_limit?",
    )


def test_all_wrong_fields_are_told_at_once_up_to_a_bound() -> None:
    assert [field for field, _ in refusals(to_json(EXAMPLE | {"model_name": "X", "script_name": "x", "tags": 1}))] == [
        "script_name",
        "model_name",
        "tags",
    ]
    many = refusals(to_json(EXAMPLE | {f"unknown{number}": 1 for number in range(1000)}))
    assert len(many) == ERRORS_MAX


def test_the_path_of_a_field_with_an_endless_name_is_cut() -> None:
    assert len(refusal(**{"x" * 10_000: 1})[0]) == 100


@pytest.mark.parametrize(
    ("script", "part"),
    [
        ("", "is empty"),
        ("print(1)", "base64 -w0"),
        ("cHJpbnQoMSk", "base64 -w0"),  # no padding
        ("cHJpbnQoMSkK\n", "base64 -w0"),
        ("cHJp bnQoMSkK", "base64 -w0"),
        ("=cHJpbnQoMSkK", "base64 -w0"),
        ("cHJpbnQoMSkK====", "base64 -w0"),
        ("cHJpbnQoMSl=", "base64 -w0"),  # bits that mean nothing
        ("-_-_", "base64 -w0"),  # the alphabet of URLs
        ("é" * 4, "base64 -w0"),
        (encoded(b"\xe9 = 1"), "UTF-8"),
        (encoded(b"x = 1\0"), "NUL at byte 5"),
        (encoded(b"#" * (validation.SCRIPT_MAX_BYTES + 1)), "more than 1048576 bytes"),
        (encoded(b"#" * (validation.SCRIPT_MAX_BYTES + 100)), "more than 1048576 bytes"),
    ],
)
def test_a_script_that_is_no_strict_base64_of_utf8_text_is_refused(script: str, part: str) -> None:
    field, message = refusal(script_content=script)
    assert field == "script_content"
    assert part in message


@pytest.mark.parametrize("script", [b"#" * validation.SCRIPT_MAX_BYTES, "\ufeffé = 1".encode(), b"not python at all ("])
def test_any_other_text_up_to_the_limit_is_a_script(script: bytes) -> None:
    assert parsed(script_content=encoded(script)).script == script


@pytest.mark.parametrize(
    "name",
    ["", "train", ".py", "train.PY", "../train.py", "a/b.py", "a\\b.py", "-c.py", ".hidden.py", " a.py", "a\n.py",
     "a\0.py", "x" * 98 + ".py", "\u6211" * 85 + ".py"],
)  # fmt: skip
def test_a_script_name_that_is_no_plain_python_file_name_is_refused(name: str) -> None:
    assert refusal(script_name=name)[0] == "script_name"


@pytest.mark.parametrize("name", ["train.py", "Train 2.py", "été.py", "a.b.py", "\u6211" * 84 + ".py"])
def test_a_plain_python_file_name_is_a_script_name(name: str) -> None:
    assert parsed(script_name=name).script_name == name


@pytest.mark.parametrize("name", ["", "  ", " a", "a\n", "a\x1bb", "x" * 501])
def test_an_experiment_name_that_nobody_could_find_again_is_refused(name: str) -> None:
    assert refusal(experiment_name=name)[0] == "experiment_name"


def test_the_limits_of_mlflow_are_the_ones_of_the_installed_mlflow() -> None:
    assert validation.EXPERIMENT_NAME_MAX == mlflow_validation.MAX_EXPERIMENT_NAME_LENGTH
    assert validation.TAG_KEY_MAX == mlflow_validation.MAX_MODEL_REGISTRY_TAG_KEY_LENGTH
    assert validation.TAG_VALUE_MAX <= mlflow_validation.MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH
    assert validation.TAG_VALUE_MAX == mlflow_validation.MAX_TAG_VAL_LENGTH


@pytest.mark.parametrize(
    "name", ["", "Iris", "iris_1", "-iris", "iris-", "a.b", "i" * 54, "iris\n", "élan", "platform"]
)
def test_a_model_name_that_is_no_dns_label_or_reserved_is_refused(name: str) -> None:
    assert refusal(model_name=name)[0] == "model_name"


@pytest.mark.parametrize("name", ["i", "1", "i" * 53, "iris-classifier-2"])
def test_a_dns_label_is_a_model_name(name: str) -> None:
    assert parsed(model_name=name).model_name == name


@pytest.mark.parametrize(
    ("requirement", "part"),
    [
        ("-r other.txt", "option"),
        ("--index-url=https://user:hunter2@example.org", "option"),
        ("numpy\n--index-url x", "line break"),
        ("numpy @ https://user:hunter2@example.org/numpy.whl", "URL"),
        ("https://user:hunter2@example.org/numpy.whl", "PEP 508"),
        ("git+https://example.org/numpy", "PEP 508"),
        ("./numpy", "PEP 508"),
        ("/tmp/numpy.whl", "PEP 508"),
        ("numpy==", "PEP 508"),
        ("numpy # newest", "PEP 508"),
        ("", "PEP 508"),
        ("x" * 301, "at most 300"),
    ],
)
def test_a_requirement_that_is_more_than_a_name_and_versions_is_refused(requirement: str, part: str) -> None:
    field, message = refusal(requirements=["mlflow", requirement])
    assert field == "requirements[1]"
    assert part in message
    assert "hunter2" not in message


def test_a_requirement_may_have_extras_bounds_and_markers() -> None:
    given = [
        "uvicorn[standard]>=0.3,<1",
        "numpy<2; python_version < '3.12'",
        "numpy>=2; python_version >= '3.12'",
        " a ",
    ]
    assert parsed(requirements=given).requirements == (*given[:3], "a")


def test_the_list_of_requirements_is_bounded_and_names_nothing_twice() -> None:
    assert parsed(requirements=[]).requirements == ()
    assert refusal(requirements=["Scikit_Learn>1", "scikit-learn<2"])[0] == "requirements"
    assert refusal(requirements=[f"package{number}" for number in range(201)]) == (
        "requirements",
        "has too many items; at most 200 are allowed",
    )
    assert refusal(requirements="mlflow") == ("requirements", "must be a list of strings")
    assert refusal(requirements=[1]) == ("requirements[0]", "must be a string, in quotes")


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "É", "A=B", "A\0", "x" * 201])
def test_a_variable_whose_name_is_not_of_posix_is_refused(name: str) -> None:
    assert refusal(environment_vars={name: "1"})[0].startswith("environment_vars.")


@pytest.mark.parametrize(
    "name",
    [*validation.RESERVED_VARIABLES, "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "UV_INDEX_URL", "MLFLOW_TRACKING_URI",
     "MLFLOW_EXPERIMENT_NAME", "ASGARD_API_TOKEN", "PULUMI_CONFIG_PASSPHRASE"],
)  # fmt: skip
def test_a_reserved_variable_is_refused_with_the_reason(name: str) -> None:
    field, message = refusal(environment_vars={name: "hunter2"})
    assert field == f"environment_vars.{name}"
    assert message.startswith("is reserved: ")
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "name", ["path", "PYTHONHASHSEED", "OMP_NUM_THREADS", "PORT", "_X", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"]
)
def test_other_variables_are_free(name: str) -> None:
    assert parsed(environment_vars={name: "a\nb = é"}).environment_vars == {name: "a\nb = é"}


def test_values_of_variables_are_strings_without_nul_and_bounded_together() -> None:
    assert refusal(environment_vars={"A": 1}) == ("environment_vars.A", "must be a string, in quotes")
    assert refusal(environment_vars={"A": "hun\0ter2"}) == (
        "environment_vars.A",
        "holds a NUL character; an environment variable cannot",
    )
    field, message = refusal(environment_vars={"A": "é" * 32_768, "B": ""})
    assert (field, message) == ("environment_vars", "have 65538 bytes together; at most 65536 are allowed")
    assert parsed(environment_vars={"A": "x" * 65_535}).environment_vars


@pytest.mark.parametrize("replicas", [0, 101, -1, True, "1", 1.0, 1.5, 10**30])
def test_replicas_are_an_integer_from_1_to_100(replicas: object) -> None:
    assert refusal(deployment_config={"replicas": replicas})[0] == "deployment_config.replicas"


@pytest.mark.parametrize(
    "limit", ["", "0", "63Mi", "2G i", "2GB", "-2Gi", "1e99", "9Ei", "infinity", "٣Gi", 2147483648]
)
def test_a_memory_limit_is_a_quantity_of_at_least_64_mebibytes(limit: object) -> None:
    assert refusal(deployment_config={"memory_limit": limit})[0] == "deployment_config.memory_limit"


@pytest.mark.parametrize("limit", ["", "0", "0m", "0.0001", "999u", "-1", "1 core", "9E", 1])
def test_a_cpu_limit_is_a_quantity_of_at_least_a_thousandth(limit: object) -> None:
    assert refusal(deployment_config={"cpu_limit": limit})[0] == "deployment_config.cpu_limit"


def test_quantities_are_kept_as_they_were_written() -> None:
    config = parsed(deployment_config={"replicas": 100, "memory_limit": "64Mi", "cpu_limit": "0.5"}).deployment_config
    assert (config.replicas, config.memory_limit, config.cpu_limit) == (100, "64Mi", "0.5")


TAG_KEYS = [
    "",
    " ",
    "a#b",
    "a\nb",
    "../a",
    "/a",
    "a//b",
    "a/",
    "./a",
    ".",
    "é",
    "team/owner",
    "a b",
    "a:b",
    "x" * 250,
    "a.b-c_d",
]


@pytest.mark.parametrize("key", TAG_KEYS)
def test_a_tag_key_is_refused_where_mlflow_would_refuse_it(key: str) -> None:
    try:
        mlflow_validation._validate_registered_model_tag(key, "v")  # type: ignore[no-untyped-call]  # MLflow's
    except MlflowException:
        assert refusal(tags={key: "v"})[0] == f"tags.{key}"
    else:
        assert parsed(tags={key: "v"}).tags == {key: "v"}


@pytest.mark.parametrize("key", ["asgard.status", "mlflow.source.name", "x" * 251])
def test_a_tag_key_that_is_reserved_or_too_long_is_refused(key: str) -> None:
    assert refusal(tags={key: "v"})[0].startswith("tags.")


def test_tags_are_strings_bounded_in_number_and_length() -> None:
    assert refusal(tags={"a": 1}) == ("tags.a", "must be a string, in quotes")
    assert refusal(tags={"a": "x" * 8001}) == ("tags.a", "has too many characters; at most 8000 are allowed")
    assert refusal(tags={f"tag{number}": "" for number in range(51)}) == (
        "tags",
        "has too many items; at most 50 are allowed",
    )
    assert parsed(tags={"a": ""}).tags == {"a": ""}
