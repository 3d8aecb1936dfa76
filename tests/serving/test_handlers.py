"""The server's answers, without a server: models of every shape against `mlflow.pyfunc` on the same rows."""

import datetime
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import orjson
import pandas as pd
import pytest
import scipy.sparse  # type: ignore[import-untyped]

from asgard.serving import handlers, loading, model, outputs
from asgard.serving.loaded import LoadedModel
from asgard.serving.messages import Request
from asgard.serving.problems import HealthCheckFailed
from asgard.serving.signatures import choose_input

from .models import FRAME, NAMES, PEOPLE, X
from .predicting import predict

Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def ask(loaded: Callable[[str], LoadedModel]) -> Ask:
    """The status and the content of the answer of a model to `data`."""

    def answer_of(name: str, data: Any) -> tuple[int, dict[str, Any]]:
        answer = predict(loaded(name), orjson.dumps({"data": data}, option=orjson.OPT_SERIALIZE_NUMPY))
        return answer.status, json.loads(answer.body)

    return answer_of


@pytest.mark.parametrize(
    ("name", "data", "same"),
    [
        ("specification", X.tolist(), X),
        ("specification", X[:1].tolist(), X[:1]),
        ("frame", X.tolist(), FRAME),
        ("frame", FRAME.to_dict("records"), FRAME),
        ("labels", X.tolist(), X),
        ("columns", X.tolist(), FRAME),
        ("columns", FRAME[NAMES[::-1]].to_dict("records"), FRAME),
        ("columns", FRAME[NAMES[::-1]].to_dict("list"), FRAME),
        ("frame", FRAME.to_dict("list"), FRAME),
        ("specification", FRAME.to_dict("list"), X),
        ("specification", FRAME.to_dict("records"), X),
        ("mixed", PEOPLE.to_dict("list"), PEOPLE),
        ("example", FRAME.to_dict("records"), FRAME),
        ("tensor", X.tolist(), X),
        ("mixed", PEOPLE.to_dict("records"), PEOPLE),
        ("mixed", PEOPLE.values.tolist(), PEOPLE),
        ("texts", ["a", "b"], ["a", "b"]),
        ("objects", [{"a": 1, "b": 2}, {"a": 3, "b": 4}], [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
    ],
)
def test_predictions_equal_those_of_pyfunc(
    ask: Ask, bundle: Callable[..., Path], name: str, data: Any, same: Any
) -> None:
    expected = mlflow.pyfunc.load_model(str(bundle(name) / "model")).predict(same)
    assert ask(name, data) == (200, {"predictions": list(expected)})


def test_the_labels_of_a_classifier_are_given_as_they_are(ask: Ask) -> None:
    assert set(ask("labels", X.tolist())[1]["predictions"]) == {"yes", "no"}


def test_times_go_in_and_out_as_iso_8601(ask: Ask) -> None:
    status, content = ask("times", [["2026-11-24T12:00:00Z"], ["2026-11-24T12:00:00+01:00"]])
    assert status == 200
    assert [datetime.datetime.fromisoformat(text) for text in content["predictions"]] == [
        datetime.datetime(2026, 11, 25, 12),
        datetime.datetime(2026, 11, 25, 11),
    ]


def test_an_array_of_objects_keeps_numbers_beside_texts(ask: Ask) -> None:
    assert ask("kinds", [["a", 1, 1.5, True]]) == (200, {"predictions": [["str", "int", "float", "bool"]]})
    assert ask("kinds", [["a", 1, 1.5, [1]]])[0] == 422


@pytest.mark.parametrize(
    ("data", "kind"),
    [([[1, 2]], "DataFrame"), ([{"a": 1}], "DataFrame"), (["a", "b"], "list"), ({"a": [1]}, "dict"), ("text", "str")],
)
def test_a_model_without_signature_gets_frames_for_rows_and_anything_else_as_it_is(
    ask: Ask, data: Any, kind: str
) -> None:
    assert ask("raw", data)[1]["predictions"]["type"] == kind


@pytest.mark.parametrize(
    ("name", "predictions"),
    [
        ("series", [1.5, None, None]),
        ("one-column", [0.1, 0.2]),
        (
            "several-columns",
            [{"label": "a", "0": 1, "at": "2026-01-01T00:00:00.000000000"}, {"label": None, "0": 2, "at": None}],
        ),
        ("objects-with-arrays", {"classes": ["x", "y"], "p": [[0.5, None]]}),
    ],
)
def test_what_a_model_returns_becomes_json(ask: Ask, name: str, predictions: Any) -> None:
    assert ask(name, [[1]]) == (200, {"predictions": predictions})


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (np.float32(0.1), 0.1),
        (np.array(3), 3),
        (np.array([1.5, 2.5], dtype="float16"), [1.5, 2.5]),
        (np.array([1, 2], dtype=">i4"), [1, 2]),
        (np.array([[1, 2], [3, 4]]).T, [[1, 3], [2, 4]]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([True, None, 1.5, np.nan], dtype=object), [True, None, 1.5, None]),
        (np.array(["2026-01-01", "NaT"], dtype="datetime64[D]"), ["2026-01-01", None]),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (pd.Series([2**60 + 1, None], dtype="Int64"), [2**60 + 1, None]),
        (pd.DataFrame({"a": pd.array([2**60 + 1, None], dtype="Int64")}), [2**60 + 1, None]),
        (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
        (pd.Timestamp("2026-01-01T10:00:00Z"), "2026-01-01T10:00:00+00:00"),
        ([pd.NaT, pd.NA, float("inf")], [None, None, None]),
        (datetime.timedelta(hours=1), "P0DT1H0M0S"),
        ([Decimal("1.10"), Decimal("NaN")], [1.1, None]),
        (b"\x00\xff", "AP8="),
        ({1: "a", "b": (1, 2)}, {"1": "a", "b": [1, 2]}),
        ([dict(zip(np.array([0, 1]), np.array([0.25, 0.75]), strict=True))], [{"0": 0.25, "1": 0.75}]),
        ({np.bool_(True): ({np.int64(2): {3}},)}, {"true": [{"2": [3]}]}),
        (np.ma.array([1.5, 2.5], mask=[False, True]), [1.5, None]),
        ([{"p": pd.DataFrame({"a": [1], "b": [2]})}], [{"p": [{"a": 1, "b": 2}]}]),
        ((value for value in (1, 2)), [1, 2]),
        (scipy.sparse.csr_matrix([[0, 1.5], [2, 0]]), [[0, 1.5], [2, 0]]),
    ],
)
def test_values_of_every_kind_are_encoded(output: Any, expected: Any) -> None:
    assert json.loads(outputs.encode(output)) == {"predictions": expected}


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("specification", [[1, 2]], ["Row 0", "2 values", "expected 5"]),
        ("specification", [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]], ["Row 1", "6 values", "expected 5"]),
        ("specification", [[1, 2, 3, 4, "x"]], ["Column 4", "row 0", "'x'"]),
        ("specification", [1, 2, 3, 4, 5], ["Row 0", "5 values"]),
        ("specification", "text", ["rows of 5 values"]),
        ("specification", [], ["no rows"]),
        ("list-example", [[1, 2]], ["Row 0", "2 values", "expected 5"]),
        ("list-example", [1, 2, 3, 4, 5], ["Row 0", "5 values"]),
        ("list-example", [[1, 2, 3, 4, "x"]], ["Column 4", "row 0", "'x'"]),
        ("list-example", [], ["no rows"]),
        ("list-example", 1, ["list of rows"]),
        ("frame", [dict.fromkeys("abcd", 1)], ["'e'"]),
        ("columns", [[1, 2, 3, 4]], ["4 values", "expected 5"]),
        ("columns", [dict.fromkeys("abcdE", 1)], ["Missing column 'e'", "'E'"]),
        ("columns", [[1, 2, 3, 4, "x"]], ["Column 'e'", "row 0", "a number", "'x'"]),
        ("columns", [[1, 2, 3, 4, True]], ["Column 'e'", "true"]),
        ("columns", [{"a": 1}, 5], ["object"]),
        (
            "columns",
            {"a": [1, 2], "b": [1, 2], "c": [1, 2], "d": [1, 2], "e": [1]},
            ["as many values", "'a' has 2", "'e' has 1"],
        ),
        ("columns", {name: [1, 2] for name in "abcd"}, ["Missing column 'e'"]),
        ("columns", {name: [1, "x"] for name in "abcde"}, ["Column 'a'", "row 1", "'x'"]),
        ("columns", {name: [] for name in "abcde"}, ["no rows"]),
        ("columns", 5, ["list of rows"]),
        ("tensor", [[1, 2]], ["2 values", "expected 5"]),
        ("tensor", [[1, 2, 3, 4, "x"]], ["Column 4", "'x'"]),
        ("tensor-logistic", [[0] * 5, [0, None, 0, 0, 0]], ["Column 1, row 1", "null"]),
        ("tensor", [dict.fromkeys(NAMES, 1)], ["rows as lists"]),
        ("mixed", [[20.5, 1.5, "Oslo", True]], ["Column 'age'", "whole number", "20.5"]),
        ("mixed", [[None, 1.5, "Oslo", True]], ["Column 'age'", "null"]),
        ("mixed", [[20, 1.5, 7, True]], ["Column 'city'", "a string", "7"]),
        ("mixed", [[20, 1.5, "Oslo", 1]], ["Column 'member'", "true or false"]),
        ("mixed", [[2**63, 1.5, "Oslo", True]], ["Column 'age'"]),
        (
            "unsettled",
            [{"age": 20, "income": 1.5, "member": True, "town": "Oslo"}],
            ["Missing column 'city'", "'town'"],
        ),
        ("mixed", [[20, 1.5, "Oslo", True], [20, 1.5, None, True]], ["Column 'city', row 1", "a string", "null"]),
        ("words", [["one two"], [None]], ["Column 'text', row 1", "a string", "null"]),
        ("times", [["yesterday-ish"]], ["Column 'at'", "ISO 8601"]),
        ("times", [["2026-01-01"], ["9999-12-31"]], ["Column 'at', row 1", "to 2261"]),
        ("times", [["1500-01-01T00:00:00Z"]], ["Column 'at'", "1678"]),
        ("finite", [[1, 2], [1, None]], ["Column 'b'", "row 1", "null"]),
        ("finite", {"a": [1], "b": [1e300]}, ["Column 'b'", "row 0", "1e+300"]),
        ("specification", [[1, 2, 3, 4, 1e39]], ["Column 4", "1e+39"]),
        ("vector", [2**33], ["out of the range of int32"]),
        ("vector", [-(2**31) - 1], ["out of the range of int32"]),
        ("vector", ["x"], ["array of int32"]),
        ("named-tensors", {"x": [[0.0, 1.0, 2.0]], "y": ["z"]}, ["Input 'y'", "float32"]),
        ("named-tensors", {"x": [[0.0, 1.0, 2.0]], "y": [1e300]}, ["Input 'y'", "out of the range of float32"]),
        ("texts", [1, 2], []),
    ],
)
def test_data_that_does_not_fit_is_answered_422_and_says_where(ask: Ask, name: str, data: Any, said: list[str]) -> None:
    status, content = ask(name, data)
    assert (status, content["status"], content["code"]) == (422, 422, "invalid_data")
    assert [text for text in said if text not in content["detail"]] == []
    assert content["pointer"].startswith("/data")


def test_missing_numbers_are_null(ask: Ask, bundle: Callable[..., Path]) -> None:
    rows = X[:2].copy()
    rows[0, 0] = np.nan
    expected = mlflow.pyfunc.load_model(str(bundle("columns") / "model")).predict(pd.DataFrame(rows, columns=NAMES))
    assert ask("columns", [[None, *rows[0, 1:]], rows[1].tolist()]) == (200, {"predictions": expected.tolist()})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b'{"data": [[NaN]]}', "not_json"),
        (b"[1]", "missing_data"),
        (b'{"rows": []}', "missing_data"),
        (b'{"data": [[1]], "params": {}}', "unknown_field"),
    ],
)
def test_a_body_that_is_no_request_is_answered_422(
    loaded: Callable[[str], LoadedModel], body: bytes, code: str
) -> None:
    answer = predict(loaded("specification"), body)
    assert (answer.status, json.loads(answer.body)["code"]) == (422, code)
    assert answer.content_type == b"application/problem+json"


def test_a_model_that_raises_is_answered_500_and_its_traceback_is_logged(
    ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    status, content = ask("obedient", [[-1]])
    assert (status, content["code"]) == (500, "model_failed")
    assert "RuntimeError" in content["detail"]
    assert "secret" not in json.dumps(content)
    assert "the secret inside the model" in caplog.text


def test_an_output_that_has_no_form_in_json_is_answered_500(ask: Ask) -> None:
    status, content = ask("not-json", [[1]])
    assert (status, content["code"]) == (500, "answer_not_serializable")


@pytest.mark.parametrize(
    ("name", "checked"),
    [
        ("example", "input_example"),
        ("dates-example", "input_example"),  # a text in the file, as in requests
        ("columns", "signature"),
        ("tensor", "signature"),
        ("times", "signature"),
        ("specification", "loaded"),
        ("mixed", "loaded"),  # its encoder knows no empty city, which says nothing about the model
    ],
)
def test_metadata_says_how_the_model_was_checked(loaded: Callable[[str], LoadedModel], name: str, checked: str) -> None:
    assert loaded(name).info["health_check"] == checked


def test_metadata_describes_what_serves(loaded: Callable[[str], LoadedModel]) -> None:
    metadata = handlers.operations(loaded("columns"))["/metadata"].server
    assert metadata is not None
    info = json.loads(metadata(Request(b"")).body)
    assert {key: info[key] for key in ("name", "version", "run_id", "deployment_id", "flavor")} == {
        "name": "iris",
        "version": "1",
        "run_id": "abcdef0123",
        "deployment_id": "iris-v1-abcdef",
        "flavor": "sklearn",
    }
    assert [column["name"] for column in info["signature"]["inputs"]] == NAMES
    assert info["libraries"]["numpy"] == np.__version__
    assert info["python_version"].startswith("3.")


def test_a_model_that_fails_its_check_is_not_served(bundle: Callable[..., Path]) -> None:
    with pytest.raises(HealthCheckFailed, match="cannot predict anything"):
        loading.load(bundle("broken"))


def test_mlflows_check_of_the_input_is_left_out_where_the_conversion_has_done_its_work(
    bundle: Callable[..., Path],
) -> None:
    def checks(name: str) -> bool:
        original = mlflow.pyfunc.load_model(str(bundle(name) / "model"))
        return bool(model.choose_predict(original, choose_input(original)) == original.predict)

    assert not any(map(checks, ("columns", "tensor", "mixed", "example")))
    assert all(map(checks, ("obedient", "texts", "times", "raw")))
