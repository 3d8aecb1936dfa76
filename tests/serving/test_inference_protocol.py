"""The Open Inference Protocol, without a server: what each kind of model is asked with tensors, and what it answers."""

import asyncio
import importlib.metadata
import json
import struct
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pandas as pd
import pytest

from asgard.serving import handlers, inference_protocol, loading, model, outputs
from asgard.serving.application import Application, of_model
from asgard.serving.asking import Asking
from asgard.serving.loaded import LoadedModel, NotQuick
from asgard.serving.messages import Answer, Request
from asgard.serving.queueing import QUEUE_MIN

from .http_server import client_of
from .models import FRAME, NAMES, PEOPLE, X
from .predicting import predictions

INFER = "/v2/models/iris/infer"

Load = Callable[[str], LoadedModel]
Tensor = dict[str, Any]


@pytest.fixture(scope="module")
def both(compiled: Callable[[str], Path]) -> Callable[[str], tuple[LoadedModel, LoadedModel]]:
    """A model as it is, and by its compiled form."""

    @cache
    def load(name: str) -> tuple[LoadedModel, LoadedModel]:
        return model.load(compiled(name), {}), loading.load(compiled(name))

    return load


def returning(predict: Callable[[Any], Any], *, outputs_schema: Any = None, inputs: Any = None) -> LoadedModel:
    """A model that takes anything."""
    return LoadedModel(
        read=lambda data: data,
        predict=predict,
        encode=outputs.encode,
        explain=lambda error, data: None,
        original=lambda: None,
        info={
            "name": "iris",
            "deployment_id": "m-v1-abcdef",
            "version": "1",
            "flavor": "python_function",
            "libraries": {"mlflow": "3.0"},
            "signature": {"inputs": inputs, "outputs": outputs_schema},
        },
    )


def asked(found: LoadedModel) -> Asking:
    asking = handlers.operations(found)[INFER].model
    assert asking is not None
    return asking


def raw(found: LoadedModel, body: bytes, **headers: str) -> Answer:
    return asked(found).one(Request(body, {name.encode(): value.encode() for name, value in headers.items()}))


def infer(found: LoadedModel, *inputs: Tensor, **fields: Any) -> tuple[int, dict[str, Any]]:
    answer = raw(found, orjson.dumps({"inputs": inputs, **fields}))
    return answer.status, json.loads(answer.body)


def data(found: LoadedModel, *inputs: Tensor) -> Any:
    """The data of the answer's one output."""
    status, content = infer(found, *inputs)
    assert status == 200, content
    (output,) = content["outputs"]
    return output["data"]


def tensor(name: str, datatype: str, values: Any, shape: Sequence[int] | None = None) -> Tensor:
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    return {"name": name, "datatype": datatype, "shape": shape or np.shape(values), "data": listed}


def columns(frame: pd.DataFrame, **datatypes: str) -> list[Tensor]:
    return [tensor(name, datatypes.get(name, "FP64"), frame[name].to_numpy()) for name in frame]


def with_bytes(content: dict[str, Any], *parts: bytes) -> Request:
    """A request with binary tensors."""
    header = orjson.dumps(content)
    length = {b"inference-header-content-length": str(len(header)).encode()}
    return Request(header + b"".join(parts), length)


def binary(name: str, datatype: str, shape: Sequence[int], size: int) -> Tensor:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def split(answer: Answer) -> tuple[dict[str, Any], bytes]:
    """The JSON of an answer with binary tensors, and the bytes after it."""
    assert (answer.status, answer.content_type) == (200, b"application/octet-stream")
    length = int(answer.headers[b"inference-header-content-length"])
    return json.loads(answer.body[:length]), answer.body[length:]


EVERY = [
    ("BOOL", "bool", [[True, False], [False, True]], "01000001"),
    ("UINT8", "uint8", [[0, 255], [1, 2]], "00ff0102"),
    ("UINT16", "uint16", [[0, 65535], [1, 2]], "0000ffff01000200"),
    ("UINT32", "uint32", [[0, 2**32 - 1]], "00000000ffffffff"),
    ("UINT64", "uint64", [[2**64 - 1]], "ffffffffffffffff"),
    ("INT8", "int8", [[-128, 127]], "807f"),
    ("INT16", "int16", [[-2, 1]], "feff0100"),
    ("INT32", "int32", [[-2, 1]], "feffffff01000000"),
    ("INT64", "int64", [[-(2**63), 1]], "00000000000000800100000000000000"),
    ("FP16", "float16", [[1.5, -2.0]], "003e00c0"),
    ("FP32", "float32", [[1.5, None]], "0000c03f0000c07f"),
    ("FP64", "float64", [[1.5, -2.0]], "000000000000f83f00000000000000c0"),
    ("BYTES", "object", [["a", "ü"], ["", "bc"]], "0100000061" + "02000000c3bc" + "00000000" + "020000006263"),
]
"""Datatype, dtype, elements, and the same as bytes in hexadecimal."""


@pytest.mark.parametrize(("datatype", "dtype", "values", "content"), EVERY)
def test_a_tensor_of_every_datatype_goes_in_and_out_as_json_flat_or_nested(
    datatype: str, dtype: str, values: list[list[Any]], content: str
) -> None:
    same = returning(lambda rows: np.array(rows, dtype=dtype))
    flat = [value for row in values for value in row]
    shape = [len(values), len(values[0])]
    expected = {"name": "predict", "datatype": datatype, "shape": shape, "data": flat}
    for given in (flat, values):
        status, answer = infer(same, tensor("x", datatype, given, shape))
        assert (status, answer["outputs"]) == (200, [expected])


@pytest.mark.parametrize(("datatype", "dtype", "values", "content"), EVERY)
def test_a_tensor_of_every_datatype_goes_in_and_out_as_bytes(
    datatype: str, dtype: str, values: list[list[Any]], content: str
) -> None:
    same, given = returning(lambda rows: np.array(rows, dtype=dtype)), bytes.fromhex(content)
    shape = [len(values), len(values[0])]
    inputs = [binary("x", datatype, shape, len(given))]
    request = with_bytes({"inputs": inputs, "parameters": {"binary_data_output": True}}, given)
    header, rest = split(asked(same).one(request))
    assert header["outputs"] == [binary("predict", datatype, shape, len(given))]
    assert rest == given


def test_bf16_reaches_the_model_as_fp32() -> None:
    same = returning(lambda rows: np.array(rows, dtype="float32"))
    request = with_bytes({"inputs": [binary("x", "BF16", [1, 3], 6)]}, bytes.fromhex("c03f00c04940"))
    (output,) = orjson.loads(asked(same).one(request).body)["outputs"]
    assert output == {"name": "predict", "datatype": "FP32", "shape": [1, 3], "data": [1.5, -2.0, 3.140625]}


@pytest.mark.parametrize(
    ("datatype", "given", "taken"), [("INT8", [1.0, -2], [1, -2]), ("BOOL", [1.0, 0], [True, False])]
)
def test_clients_that_have_one_type_for_all_numbers_are_understood(
    datatype: str, given: list[Any], taken: list[Any]
) -> None:
    output = infer(returning(np.array), tensor("x", datatype, given))[1]["outputs"][0]
    assert (output["data"], set(map(type, output["data"]))) == (taken, {type(taken[0])})


def test_fp32_numbers_reach_the_model_as_such() -> None:
    seen: list[Any] = []

    def keep(rows: Any) -> Any:
        seen.append(rows)
        return np.array([0])

    infer(returning(keep), tensor("x", "FP32", [[0.1]]))
    assert seen == [[[float(np.float32(0.1))]]]


@pytest.mark.parametrize(
    ("name", "inputs", "rows"),
    [
        ("specification", [tensor("x", "FP64", X)], X.tolist()),
        ("specification", [tensor("x", "FP64", X.ravel(), X.shape)], X.tolist()),
        ("frame", columns(FRAME), X.tolist()),
        ("frame", columns(FRAME[NAMES[::-1]]), X.tolist()),
        ("labels", [tensor("x", "FP64", X)], X.tolist()),
        ("columns", columns(FRAME), X.tolist()),
        ("columns", [tensor(n, "FP64", FRAME[[n]].to_numpy()) for n in NAMES], X.tolist()),
        ("columns", [tensor("x", "FP64", X[:1])], X[:1].tolist()),
        ("columns", [tensor("x", "INT8", [[1, 2, 3, 4, 5]])], [[1, 2, 3, 4, 5]]),
        ("tensor", [tensor("whatever", "FP64", X)], X.tolist()),
        (
            "mixed",
            columns(PEOPLE, age="INT64", city="BYTES", member="BOOL"),
            PEOPLE.values.tolist(),
        ),
        ("texts", [tensor("text", "BYTES", ["a", "b"])], ["a", "b"]),
        ("texts", [tensor("text", "BYTES", [["a"], ["b"]])], ["a", "b"]),
        (
            "objects",
            [tensor("a", "INT64", [1, 3]), tensor("b", "INT64", [2, 4])],
            [{"a": 1, "b": 2}, {"a": 3, "b": 4}],
        ),
        ("obedient", [tensor("order", "FP64", [6])], [[6]]),
        ("obedient", [tensor("any", "FP64", [6])], [[6]]),
    ],
)
def test_tensors_are_answered_as_the_same_rows_are(
    loaded: Load, name: str, inputs: list[Tensor], rows: list[Any]
) -> None:
    assert data(loaded(name), *inputs) == predictions(loaded(name), rows)


def test_a_missing_number_is_null_or_nan(loaded: Load) -> None:
    rows = [[None, *X[0, 1:].tolist()]]
    expected = predictions(loaded("columns"), rows)
    assert data(loaded("columns"), tensor("x", "FP64", rows)) == expected
    given = np.array(rows, dtype="<f8").tobytes()
    answer = asked(loaded("columns")).one(with_bytes({"inputs": [binary("x", "FP64", [1, 5], 40)]}, given))
    assert json.loads(answer.body)["outputs"][0]["data"] == expected


def test_a_signature_of_named_tensors_takes_them_by_name(loaded: Load) -> None:
    x, y = np.arange(6.0).reshape(2, 3), [0.5, 1.5]
    status, content = infer(loaded("named-tensors"), tensor("y", "FP32", y), tensor("x", "FP64", x))
    assert (status, content["outputs"]) == (
        200,
        [
            {"name": "sum", "datatype": "FP64", "shape": [2], "data": [3.5, 13.5]},
            {"name": "x", "datatype": "FP64", "shape": [2, 3], "data": x.ravel().tolist()},
        ],
    )
    assert infer(loaded("named-tensors"), tensor("x", "FP64", x))[0] == 400


def test_bytes_that_are_no_text_go_in_and_out(loaded: Load) -> None:
    content = struct.pack("<I", 3) + b"\xff\x00\x01"
    wanted = {"inputs": [binary("content", "BYTES", [1], 7)]}
    _, rest = split(
        asked(loaded("reversed")).one(with_bytes({**wanted, "parameters": {"binary_data_output": True}}, content))
    )
    assert rest == struct.pack("<I", 3) + b"\x01\x00\xff"
    as_json = asked(loaded("reversed")).one(with_bytes(wanted, content))
    assert json.loads(as_json.body)["outputs"][0]["data"] == ["AQD/"]
    assert data(loaded("reversed"), tensor("content", "BYTES", ["/wAB"])) == ["AQD/"]


@pytest.mark.parametrize("name", ["specification", "columns", "tensor"])
def test_a_compiled_form_answers_with_the_bytes_of_the_original(
    both: Callable[[str], tuple[LoadedModel, LoadedModel]], name: str
) -> None:
    original, form = both(name)
    given = X.astype("<f8").tobytes()
    content = {"inputs": [binary("x", "FP64", X.shape, len(given))], "parameters": {"binary_data_output": True}}
    requests = [
        Request(orjson.dumps({"inputs": [tensor("x", "FP64", X)]})),
        with_bytes(content, given),
        Request(orjson.dumps({"inputs": [tensor("x", "FP64", X[:, :4])]})),
        Request(orjson.dumps({"inputs": [tensor("x", "BYTES", [["a"]])]})),
    ]
    for request in requests:
        assert asked(form).one(request) == asked(original).one(request)
    quick = handlers.operations(form)[INFER].quick
    assert quick is not None
    assert quick.one(requests[0]) == asked(original).one(requests[0])


def test_rows_that_a_form_does_not_take_leave_the_event_loop(
    both: Callable[[str], tuple[LoadedModel, LoadedModel]],
) -> None:
    quick = handlers.operations(both("columns")[1])[INFER].quick
    assert quick is not None
    infinite = np.full((1, 5), np.inf).tobytes()
    with pytest.raises(NotQuick):
        quick.one(with_bytes({"inputs": [binary("x", "FP64", [1, 5], 40)]}, infinite))


def test_requests_that_are_predicted_together_are_answered_as_each_alone(
    both: Callable[[str], tuple[LoadedModel, LoadedModel]],
) -> None:
    form = both("columns")[1]
    asking = asked(form)
    assert asking.many is not None
    given = X[2:4].astype("<f8").tobytes()
    one = {"inputs": [tensor("x", "FP64", X[:1])]}
    requests = [
        Request(orjson.dumps({**one, "id": "first"})),
        Request(orjson.dumps({"inputs": columns(FRAME[:2])})),
        with_bytes({"inputs": [binary("x", "FP64", [2, 5], 80)], "outputs": [{"name": "predict"}]}, given),
        Request(orjson.dumps({**one, "parameters": {"binary_data_output": True}})),
        Request(b"{"),
        Request(orjson.dumps({**one, "outputs": [{"name": "other"}]})),
    ]
    answers = asking.many(requests)
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 400, 400]
    assert answers == [asking.one(request) for request in requests]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (
            pd.DataFrame({"label": ["a", None], 0: np.array([1, 2], dtype="int32")}),
            [("label", "BYTES", [2], ["a", None]), ("0", "INT32", [2], [1, 2])],
        ),
        (
            {"classes": np.array(["x", "y"]), "p": np.array([[0.5, np.nan]], dtype="float32"), "n": 3},
            [("classes", "BYTES", [2], ["x", "y"]), ("p", "FP32", [1, 2], [0.5, None]), ("n", "INT64", [1], [3])],
        ),
        (pd.Series([1.5, np.inf]), [("predict", "FP64", [2], [1.5, None])]),
        (pd.Series([1, None], dtype="Int64"), [("predict", "FP64", [2], [1.0, None])]),
        (pd.Series(["a", "b"], dtype="category"), [("predict", "BYTES", [2], ["a", "b"])]),
        ([[1, 2], [3, 4]], [("predict", "INT64", [2, 2], [1, 2, 3, 4])]),
        ([True, False], [("predict", "BOOL", [2], [True, False])]),
        (["a", "b"], [("predict", "BYTES", [2], ["a", "b"])]),
        ([1, "a"], [("predict", "BYTES", [2], ["1", "a"])]),
        ([[1, 2], [3]], [("predict", "BYTES", [2], ["[1,2]", "[3]"])]),
        ([{"a": 1}], [("predict", "BYTES", [1], ['{"a":1}'])]),
        (0.5, [("predict", "FP64", [1], [0.5])]),
        (np.float32(0.5), [("predict", "FP64", [1], [0.5])]),
        (np.array(3, dtype="uint8"), [("predict", "UINT8", [1], [3])]),
        (np.array([[1, 2], [3, 4]], dtype=">i2").T, [("predict", "INT16", [2, 2], [1, 3, 2, 4])]),
        (np.array(["2026-01-01", "NaT"], dtype="datetime64[D]"), [("predict", "BYTES", [2], ["2026-01-01", None])]),
        (np.array([0.5], dtype="longdouble"), [("predict", "FP64", [1], [0.5])]),
        (np.ma.array([1.5, 2.5], mask=[False, True]), [("predict", "FP64", [2], [1.5, None])]),
        (np.matrix([[1, 2], [3, 4]]), [("predict", "INT64", [2, 2], [1, 2, 3, 4])]),
    ],
)
def test_what_a_model_returns_becomes_tensors(
    output: Any, expected: list[tuple[str, str, list[int], list[Any]]]
) -> None:
    status, content = infer(returning(lambda rows: output), tensor("x", "FP64", [[1.0]]))
    assert status == 200
    assert [(o["name"], o["datatype"], o["shape"], o["data"]) for o in content["outputs"]] == expected


@pytest.mark.parametrize(
    ("output", "content"),
    [
        (np.array([1, 2], dtype=">i2"), b"\x01\x00\x02\x00"),
        (np.array([[1, 2], [3, 4]], dtype="int8").T, b"\x01\x03\x02\x04"),
        (np.array([0.5], dtype="longdouble"), struct.pack("<d", 0.5)),
        (pd.Series(["a", None]), b"\x01\x00\x00\x00a\x00\x00\x00\x00"),
    ],
)
def test_an_output_of_another_layout_is_written_as_the_protocol_has_it(output: Any, content: bytes) -> None:
    body = orjson.dumps({"inputs": [tensor("x", "FP64", [1.0])], "parameters": {"binary_data_output": True}})
    assert split(raw(returning(lambda rows: output), body))[1] == content


def test_outputs_have_the_names_that_the_signature_gives_them() -> None:
    one = returning(lambda rows: np.array([1]), outputs_schema=[{"type": "long", "name": "target"}])
    assert [output["name"] for output in infer(one, tensor("x", "FP64", [1.0]))[1]["outputs"]] == ["target"]
    both = [{"type": "double", "name": "low"}, {"type": "double", "name": "high"}]
    two = returning(lambda rows: np.array([[1.0, 2.0], [3.0, 4.0]]), outputs_schema=both)
    assert infer(two, tensor("x", "FP64", [1.0]))[1]["outputs"] == [
        {"name": "low", "datatype": "FP64", "shape": [2], "data": [1.0, 3.0]},
        {"name": "high", "datatype": "FP64", "shape": [2], "data": [2.0, 4.0]},
    ]


TWO = returning(lambda rows: {"a": np.array([1], dtype="int8"), "b": np.array([2], dtype="int8")})


def test_only_the_outputs_that_are_asked_for_are_answered_and_in_that_order() -> None:
    def names(*wanted: str) -> list[str]:
        content = infer(TWO, tensor("x", "FP64", [1.0]), outputs=[{"name": name} for name in wanted])[1]
        return [output["name"] for output in content["outputs"]]

    assert (names(), names("b"), names("b", "a")) == (["a", "b"], ["b"], ["b", "a"])
    status, content = infer(TWO, tensor("x", "FP64", [1.0]), outputs=[{"name": "c"}])
    assert (status, content) == (400, {"error": "There is no output 'c'; there are 'a', 'b'."})


@pytest.mark.parametrize(
    ("default", "of_a", "of_b", "rest"),
    [(False, True, None, b"\x01"), (True, False, None, b"\x02"), (True, None, True, b"\x01\x02")],
)
def test_each_output_may_say_whether_it_is_to_be_bytes(
    default: bool, of_a: bool | None, of_b: bool | None, rest: bytes
) -> None:
    wanted = [
        {"name": name, "parameters": {} if as_bytes is None else {"binary_data": as_bytes}}
        for name, as_bytes in (("a", of_a), ("b", of_b))
    ]
    content = {"inputs": [tensor("x", "FP64", [1.0])], "outputs": wanted, "parameters": {"binary_data_output": default}}
    header, found = split(raw(TWO, orjson.dumps(content)))
    assert found == rest
    assert ["data" in output for output in header["outputs"]] == [name not in rest for name in (1, 2)]


def test_several_binary_inputs_follow_each_other_and_may_stand_beside_json(loaded: Load) -> None:
    frame = FRAME[:3]
    parts = [frame[name].to_numpy().astype("<f8").tobytes() for name in "ace"]
    inputs = [
        binary(name, "FP64", [3], 24) if name in "ace" else tensor(name, "FP64", frame[name].to_numpy())
        for name in NAMES
    ]
    answer = asked(loaded("columns")).one(with_bytes({"inputs": inputs}, *parts))
    assert json.loads(answer.body)["outputs"][0]["data"] == predictions(loaded("columns"), frame.values.tolist())


def test_the_answer_names_the_model_its_version_and_the_id_of_the_request(loaded: Load) -> None:
    found = loaded("columns")
    content = infer(found, tensor("x", "FP64", X[:1]), id="42", parameters={"priority": 3})[1]
    assert (content["model_name"], content["model_version"], content["id"]) == ("iris", "1", "42")
    assert "id" not in infer(found, tensor("x", "FP64", X[:1]), id=None, parameters=None, outputs=None)[1]


GOOD = tensor("x", "FP64", [[1.0, 2, 3, 4, 5]])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "object"),
        ({}, "inputs"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": []}, "no inputs"),
        ({"inputs": [1]}, "input"),
        ({"inputs": [{**GOOD, "name": 1}]}, "name"),
        ({"inputs": [GOOD, GOOD]}, "two inputs 'x'"),
        ({"inputs": [{**GOOD, "datatype": "FP8"}]}, "'FP8'"),
        ({"inputs": [{**GOOD, "datatype": None}]}, "datatype"),
        ({"inputs": [{**GOOD, "shape": None}]}, "shape"),
        ({"inputs": [{**GOOD, "shape": [-1, 5]}]}, "shape"),
        ({"inputs": [{**GOOD, "shape": []}]}, "shape"),
        ({"inputs": [{**GOOD, "shape": [0, 5]}]}, "shape"),
        ({"inputs": [{**GOOD, "shape": [1.0, 5]}]}, "shape"),
        ({"inputs": [{**GOOD, "shape": [1] * 40 + [5]}]}, "dimensions"),
        ({"inputs": [{**GOOD, "shape": [5, 1]}]}, "[5, 1]"),
        ({"inputs": [{**GOOD, "shape": [1, 6]}]}, "[1, 6]"),
        ({"inputs": [{**GOOD, "shape": [10**12, 10**12]}]}, "shape"),
        ({"inputs": [{**GOOD, "data": [1, 2, 3, 4]}]}, "got 4"),
        ({"inputs": [{**GOOD, "data": [[1, 2, 3, 4, [5]]]}]}, "list is no FP64"),
        ({"inputs": [{**GOOD, "data": [[1, 2], [3, 4, 5]]}]}, "shape"),
        ({"inputs": [{**GOOD, "data": 5}]}, "list"),
        ({"inputs": [{**GOOD, "data": None}]}, "list"),
        ({"inputs": [{**GOOD, "data": [1, 2, 3, 4, "5"]}]}, "str is no FP64"),
        ({"inputs": [{**GOOD, "data": [1, 2, 3, 4, True]}]}, "bool is no FP64"),
        ({"inputs": [{**GOOD, "datatype": "FP32", "data": [1, 2, 3, 4, 1e39]}]}, "range of FP32"),
        ({"inputs": [{**GOOD, "datatype": "UINT8", "data": [1, 2, 3, 4, 256]}]}, "range of UINT8"),
        ({"inputs": [{**GOOD, "datatype": "UINT8", "data": [1, 2, 3, 4, -1]}]}, "range of UINT8"),
        ({"inputs": [{**GOOD, "datatype": "INT8", "data": [1, 2, 3, 4, 1.5]}]}, "float is no INT8"),
        ({"inputs": [{**GOOD, "datatype": "INT8", "data": [1, 2, 3, 4, None]}]}, "NoneType is no INT8"),
        ({"inputs": [{**GOOD, "datatype": "BOOL"}]}, "is no BOOL"),
        ({"inputs": [{**GOOD, "datatype": "BYTES"}]}, "is no BYTES"),
        ({"inputs": [{**GOOD, "parameters": {"binary_data_size": 40}}]}, "Inference-Header-Content-Length"),
        ({"inputs": [{**GOOD, "parameters": 5}]}, "parameters"),
        ({"inputs": [GOOD], "parameters": []}, "parameters"),
        ({"inputs": [GOOD], "outputs": 5}, "outputs"),
        ({"inputs": [GOOD], "outputs": [{}]}, "name"),
        ({"inputs": [GOOD], "id": 5}, "id"),
        ({"inputs": [tensor("x", "FP64", [[1.0, 2]])]}, "Row 0 has 2 values; expected 5."),
        ({"inputs": [tensor("a", "FP64", [1.0])]}, "Missing columns 'b', 'c', 'd', 'e'."),
        ({"inputs": [tensor("a", "FP64", [1.0]), tensor("b", "FP64", [1.0, 2.0])]}, "different lengths"),
        ({"inputs": [*columns(FRAME[:2])[:4], tensor("e", "BYTES", ["1", "x"])]}, "Column 'e', row 0"),
    ],
)
def test_a_request_that_does_not_fit_is_answered_400_and_says_why(loaded: Load, content: Any, said: str) -> None:
    answer = raw(loaded("columns"), orjson.dumps(content))
    found = json.loads(answer.body)
    assert (answer.status, answer.content_type, list(found)) == (400, b"application/json", ["error"])
    assert said in found["error"]


def test_a_model_of_one_tensor_takes_one(loaded: Load) -> None:
    status, content = infer(loaded("tensor"), GOOD, {**GOOD, "name": "y"})
    assert (status, content["error"]) == (400, "The model takes one input; got 2.")


@pytest.mark.parametrize(
    ("inputs", "content", "said"),
    [
        ([binary("x", "FP64", [1, 5], 40)], bytes(39), "39 bytes are left"),
        ([binary("x", "FP64", [1, 5], 39)], bytes(39), "are 40 bytes; got 39"),
        ([binary("x", "FP64", [1, 5], -1)], bytes(40), "binary_data_size"),
        ([{**binary("x", "FP64", [1, 5], 0), "parameters": {"binary_data_size": "40"}}], bytes(40), "'40'"),
        ([binary("x", "FP64", [1, 5], 40)], bytes(41), "1 bytes after the JSON"),
        ([GOOD], bytes(4), "4 bytes after the JSON"),
        ([binary("x", "BYTES", [2], 5)], struct.pack("<I", 1) + b"a", "2 elements; got 1"),
        ([binary("x", "BYTES", [1], 5)], struct.pack("<I", 2) + b"a", "cut off"),
        ([binary("x", "BYTES", [1], 2)], b"\x00\x00", "cut off"),
        ([binary("x", "BYTES", [1], 5)], struct.pack("<I", 1) + b"\xff", "UTF-8"),
    ],
)
def test_bytes_that_do_not_fit_are_answered_400_and_say_why(
    loaded: Load, inputs: list[Tensor], content: bytes, said: str
) -> None:
    answer = asked(loaded("columns")).one(with_bytes({"inputs": inputs}, content))
    assert answer.status == 400
    assert said in json.loads(answer.body)["error"]


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999", "", "²"])
def test_a_length_of_the_json_that_cannot_be_is_answered_400(loaded: Load, length: str) -> None:
    headers = {b"inference-header-content-length": length.encode("latin-1")}
    answer = asked(loaded("columns")).one(Request(orjson.dumps({"inputs": [GOOD]}), headers))
    assert answer.status == 400
    assert "Inference-Header-Content-Length" in json.loads(answer.body)["error"]


def test_a_model_that_raises_is_answered_500_and_its_traceback_is_logged(
    loaded: Load, caplog: pytest.LogCaptureFixture
) -> None:
    status, content = infer(loaded("obedient"), tensor("order", "FP64", [-1]))
    assert (status, list(content)) == (500, ["error"])
    assert "RuntimeError" in content["error"]
    assert "secret" not in content["error"]
    assert "the secret inside the model" in caplog.text


def test_an_output_that_has_no_form_is_answered_500(loaded: Load) -> None:
    assert infer(loaded("not-json"), tensor("x", "FP64", [[1.0]]))[0] == 500


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("specification", [], []),
        ("columns", [(name, "FP64", [-1]) for name in NAMES], [("predict", "INT64", [-1])]),
        ("tensor", [("input", "FP64", [-1, 5])], [("predict", "INT64", [-1])]),
        ("named-tensors", [("x", "FP64", [-1, 3]), ("y", "FP32", [-1])], []),
        (
            "mixed",
            [("age", "INT64", [-1]), ("income", "FP64", [-1]), ("city", "BYTES", [-1]), ("member", "BOOL", [-1])],
            [],
        ),
        ("times", [("at", "BYTES", [-1])], []),
        ("texts", [("input", "BYTES", [-1])], [("predict", "BYTES", [-1])]),
    ],
)
def test_metadata_tells_the_tensors_of_the_signature(loaded: Load, name: str, inputs: Any, outputs: Any) -> None:
    found = loaded(name).info
    content = inference_protocol.metadata(found)
    assert {key: content[key] for key in ("name", "versions", "platform")} == {
        "name": "iris",
        "versions": ["1"],
        "platform": f"mlflow_{found['flavor']}",
    }
    assert [(t["name"], t["datatype"], t["shape"]) for t in content["inputs"]] == inputs
    assert [(t["name"], t["datatype"], t["shape"]) for t in content["outputs"]] == outputs


def test_columns_of_lists_are_described_by_what_they_hold_and_taken() -> None:
    schema = [
        {"type": "array", "items": {"type": "float"}, "name": "l"},
        {"type": "object", "properties": {}, "name": "o"},
    ]
    found = returning(lambda rows: [row["l"] for row in rows], inputs=schema)
    assert inference_protocol.metadata(found.info)["inputs"] == [
        {"name": "l", "datatype": "FP32", "shape": [-1, -1]},
        {"name": "o", "datatype": "BYTES", "shape": [-1]},
    ]
    assert infer(found, tensor("l", "FP32", [[1.0], [2.0]]))[1]["outputs"][0]["shape"] == [2, 1]


def sent(application: Application, times: int, method: str, path: str, **arguments: Any) -> list[httpx.Response]:
    """The answers to as many equal requests at once."""

    async def ask() -> list[httpx.Response]:
        async with client_of(application) as client:
            return list(await asyncio.gather(*(client.request(method, path, **arguments) for _ in range(times))))

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def send(loaded: Load) -> Callable[..., httpx.Response]:
    """One request to the server of the model `columns`."""
    (application,) = of_model(loaded("columns"))
    return lambda method, path, **arguments: sent(application, 1, method, path, **arguments)[0]


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/v2/models/iris", "/v2/models/iris/ready"])
def test_what_is_asked_of_the_server_is_answered_for_get_and_head(
    send: Callable[..., httpx.Response], path: str
) -> None:
    assert (send("GET", path).status_code, send("HEAD", path).status_code) == (200, 200)


def test_the_server_says_which_it_is_and_which_extensions_it_has(send: Callable[..., httpx.Response]) -> None:
    assert send("GET", "/v2").json() == {
        "name": "asgard",
        "version": importlib.metadata.version("asgard"),
        "extensions": ["binary_tensor_data"],
    }


def test_all_that_a_model_is_asked_may_name_its_version(send: Callable[..., httpx.Response]) -> None:
    for rest in ("", "/ready"):
        named = send("GET", f"/v2/models/iris/versions/1{rest}")
        assert (named.status_code, named.content) == (200, send("GET", f"/v2/models/iris{rest}").content)
    answers = [send("POST", f"/v2/models/iris{v}/infer", json={"inputs": [GOOD]}) for v in ("", "/versions/1")]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/iris/versions/2", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/nothing", 404),
        ("POST", "/v2", 405),
        ("GET", "/v2/models/iris/infer", 405),
    ],
)
def test_what_there_is_not_is_told_as_the_protocol_tells_errors(
    send: Callable[..., httpx.Response], method: str, path: str, status: int
) -> None:
    answer = send(method, path)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert path in answer.json()["error"]


def test_what_the_server_refuses_is_told_as_the_protocol_tells_errors(send: Callable[..., httpx.Response]) -> None:
    coded = send("POST", INFER, content=b"x", headers={"content-encoding": "br"})
    assert (coded.status_code, list(coded.json())) == (415, ["error"])
    assert coded.headers["accept-encoding"] == "gzip, deflate"
    assert send("POST", "/predict", content=b"x", headers={"content-encoding": "br"}).json()["status"] == 415
    assert send("GET", "/v2x").json()["code"] == "not_found"


def test_more_than_can_wait_is_told_as_the_protocol_tells_errors() -> None:
    (application,) = of_model(returning(lambda rows: np.array([1])))
    answers = sent(application, 2 * QUEUE_MIN, "POST", INFER, json={"inputs": [GOOD]})
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} == {503}
    assert all(list(answer.json()) == ["error"] and answer.headers["retry-after"] for answer in refused)
