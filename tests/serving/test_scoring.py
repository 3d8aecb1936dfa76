"""MLflow's scoring protocol: the same requests to this server and to MLflow's own, and the same bytes back."""

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import mlflow.pyfunc
import pytest
from mlflow.pyfunc import scoring_server
from mlflow.version import VERSION

from asgard.serving import loading
from asgard.serving.application import Application, of_model

from .conftest import Saved
from .http_server import client_of, mlflow_serves, serving
from .models import FRAME, NAMES, PEOPLE, X

JSON, CSV, PARQUET = "application/json", "text/csv", "application/vnd.apache.parquet"
SERVING = "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"

ROWS = X[:3].tolist()
RECORDS = FRAME[:3].to_dict("records")
SPLIT = {"columns": NAMES, "data": ROWS}
PEOPLE_RECORDS = PEOPLE.to_dict("records")

JSONS: dict[str, Any] = {
    "split": {"dataframe_split": SPLIT},
    "split with an index": {"dataframe_split": {**SPLIT, "index": [7, 8, 9]}},
    "split in another order": {"dataframe_split": {"columns": NAMES[::-1], "data": ROWS}},
    "split that lacks a column": {"dataframe_split": {"columns": NAMES[:4], "data": [row[:4] for row in ROWS]}},
    "split with a column more": {"dataframe_split": {"columns": [*NAMES, "f"], "data": [[*row, 1] for row in ROWS]}},
    "split without names": {"dataframe_split": {"data": ROWS}},
    "split of uneven rows": {"dataframe_split": {"columns": NAMES, "data": [[1, 2], [3]]}},
    "split with a field more": {"dataframe_split": {**SPLIT, "kind": "x"}},
    "split that is a list": {"dataframe_split": ROWS},
    "split of no rows": {"dataframe_split": {"columns": NAMES, "data": []}},
    "records": {"dataframe_records": RECORDS},
    "records of people": {"dataframe_records": PEOPLE_RECORDS},
    "records with null": {"dataframe_records": [{**RECORDS[0], "a": None}]},
    "records with a text": {"dataframe_records": [{**RECORDS[0], "a": "x"}]},
    "records with a number as text": {"dataframe_records": [{**RECORDS[0], "a": "1.5"}]},
    "records that lack a column": {"dataframe_records": [{"a": 1.0}]},
    "records of nothing": {"dataframe_records": []},
    "records that are an object": {"dataframe_records": RECORDS[0]},
    "records with a time": {"dataframe_records": [{"at": "2026-11-24T12:00:00"}]},
    "records with no time": {"dataframe_records": [{"at": "noon"}]},
    "instances": {"instances": ROWS},
    "instances that are records": {"instances": RECORDS},
    "instances that are uneven": {"instances": [[1, 2], [3]]},
    "instances with lists in them": {"instances": [{"a": [1, 2], "b": [[3]]}]},
    "instances that are numbers": {"instances": [1, 2, 3]},
    "instances that are an object": {"instances": {"a": 1}},
    "instances of nothing": {"instances": []},
    "inputs": {"inputs": ROWS},
    "inputs that are one row": {"inputs": ROWS[0]},
    "inputs that are columns": {"inputs": FRAME[:3].to_dict("list")},
    "inputs that are one record": {"inputs": RECORDS[0]},
    "inputs that are records": {"inputs": RECORDS},
    "inputs that are objects": {"inputs": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]},
    "inputs that are odd objects": {"inputs": [{"a": "x"}]},
    "inputs that are texts": {"inputs": ["a", "b"]},
    "inputs that are dates": {"inputs": ["2026-11-24T12:00:00", "2026-11-25"]},
    "inputs that are deep": {"inputs": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]},
    "inputs that are null": {"inputs": None},
    "inputs that are a number": {"inputs": 3},
    "params": {"dataframe_split": SPLIT, "params": {"factor": 10.0, "unit": "km"}},
    "params in part": {"inputs": RECORDS, "params": {"unit": "cm"}},
    "params that are unknown": {"dataframe_split": SPLIT, "params": {"speed": 1}},
    "params of another type": {"dataframe_split": SPLIT, "params": {"factor": "fast"}},
    "params that are null": {"dataframe_split": SPLIT, "params": None},
    "params that are a list": {"dataframe_split": SPLIT, "params": [1]},
    "params alone": {"params": {"factor": 10.0}},
    "two forms at once": {"dataframe_split": SPLIT, "inputs": ROWS},
    "a form and other fields": {"inputs": ROWS, "colour": "red", "signature_name": "x"},
    "no form": {"data": ROWS},
    "an empty object": {},
    "a chat": {"messages": [{"role": "user", "content": "hello"}], "factor": 3.0},
    "a completion": {"prompt": "hello", "max_tokens": 3},
    "a list": ROWS,
    "a number": 3,
    "null": None,
}

BODIES: dict[str, bytes] = {
    "empty": b"",
    "cut off": b'{"inputs": [',
    "not UTF-8": b'{"inputs": ["\xff"]}',
    "UTF-16": json.dumps({"inputs": ROWS}).encode("utf-16"),
    "a mark of the byte order": b"\xef\xbb\xbf" + json.dumps({"inputs": ROWS}).encode(),
    "not a number": b'{"inputs": [[NaN, 1, 2, 3, 4]]}',
    "infinite": b'{"inputs": [[Infinity, -Infinity, 2, 3, 4]]}',
    "too large a number": b'{"inputs": [[1e400, 1, 2, 3, 123456789012345678901234567890]]}',
    "a field twice": b'{"inputs": [[1, 2]], "inputs": [[1, 2, 3, 4, 5]]}',
    "too deep": b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}

CONTENT_TYPES: tuple[str | None, ...] = (
    "application/json; charset=utf-8",
    "application/json;charset=UTF-8",
    'application/json; charset="utf-8"',
    "application/json; charset=latin-1",
    "application/json; version=1",
    "application/json;",
    "application/json ; charset=utf-8",
    "Application/JSON",
    "application/json, text/csv",
    "text/plain",
    "text/plain; charset=latin-1",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "t\xe9xt/csv",
    "",
    None,
)

CSVS: dict[str, bytes] = {
    "a table": FRAME[:3].to_csv(index=False).encode(),
    "people": PEOPLE.to_csv(index=False).encode(),
    "a table with its index": FRAME[:3].to_csv().encode(),
    "columns in another order": FRAME[NAMES[::-1]][:3].to_csv(index=False).encode(),
    "a column less": FRAME[NAMES[:4]][:3].to_csv(index=False).encode(),
    "a missing number": b"a,b,c,d,e\n1,,3,4,5\n",
    "a text for a number": b"a,b,c,d,e\nx,2,3,4,5\n",
    "names alone": b"a,b,c,d,e\n",
    "uneven lines": b"a,b\n1,2\n1,2,3\n",
    "an open quote": b'a,b\n"1,2\n',
    "not UTF-8": b"a\n\xff\n",
    "nothing": b"",
}


def parquet() -> bytes:
    target = io.BytesIO()
    FRAME[:3].to_parquet(target)
    return target.getvalue()


REQUESTS: dict[str, tuple[str | None, bytes]] = {
    **{f"JSON, {name}": (JSON, json.dumps(content).encode()) for name, content in JSONS.items()},
    **{f"JSON, {name}": (JSON, body) for name, body in BODIES.items()},
    **{f"as {name!r}": (name, json.dumps({"inputs": RECORDS}).encode()) for name in CONTENT_TYPES},
    **{f"CSV, {name}": (CSV, body) for name, body in CSVS.items()},
    **{
        f"as {name!r}": (name, CSVS["a table"])
        for name in ("text/csv; charset=utf-8", "text/csv;charset=ascii", "text/csv; header=present", "TEXT/CSV")
    },
    "Parquet": (PARQUET, parquet()),
    "not Parquet": (PARQUET, b"PAR1"),
    "nothing for Parquet": (PARQUET, b""),
}
"""What is asked, by name: content type and body."""

AS_THEY_ARE = (
    "specification",
    "columns",
    "example",
    "tensor",
    "mixed",
    "params",
    "texts",
    "objects",
    "dates",
    "raw",
    "times",
    "series",
    "several-columns",
    "objects-with-arrays",
    "not-json",
)
COMPILED = ("specification", "columns", "tensor")


class Got(NamedTuple):
    status: int
    content_type: str | None
    body: bytes


def got(answer: httpx.Response) -> Got:
    return Got(answer.status_code, answer.headers.get("content-type"), answer.content)


def headers(content_type: str | None) -> dict[bytes, bytes]:
    return {} if content_type is None else {b"content-type": content_type.encode("latin-1")}


def ask(application: Any, *requests: tuple[str, str, str | None, bytes]) -> list[Got]:
    """The answers to requests of method, path, content type and body."""

    async def each() -> list[Got]:
        asgi = httpx.ASGITransport(application, raise_app_exceptions=False)
        theirs = httpx.AsyncClient(transport=asgi, base_url="http://model")
        async with client_of(application) if isinstance(application, Application) else theirs as client:
            return [
                got(await client.request(method, path, content=body, headers=headers(content_type)))
                for method, path, content_type, body in requests
            ]

    return asyncio.run(each())


def invoke(application: Any) -> dict[str, Got]:
    """The answers to all of REQUESTS."""
    answers = ask(application, *(("POST", "/invocations", *sent) for sent in REQUESTS.values()))
    return dict(zip(REQUESTS, answers, strict=True))


@contextmanager
def in_the_serving_environment() -> Iterator[None]:
    """As in a process of MLflow's own server; leaves nothing of that to other tests."""
    os.environ[SERVING] = "true"
    try:
        yield
    finally:
        del os.environ[SERVING]


@pytest.fixture(scope="module")
def mlflows(saved: Saved) -> Callable[[str], dict[str, Got]]:
    """What MLflow's own application answers for a model."""

    @cache
    def answers(name: str) -> dict[str, Got]:
        with in_the_serving_environment():
            return invoke(scoring_server.init(mlflow.pyfunc.load_model(str(saved(name)))))

    return answers


def application(bundle: Path) -> Application:
    return of_model(loading.load(bundle))[0]


def differing(answers: dict[str, Got], expected: dict[str, Got]) -> dict[str, tuple[Got, Got]]:
    return {name: (answers[name], expected[name]) for name in expected if answers[name] != expected[name]}


@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_invocations_are_answered_with_the_bytes_of_mlflows_server(
    bundle: Callable[..., Path], mlflows: Callable[[str], dict[str, Got]], name: str
) -> None:
    assert differing(invoke(application(bundle(name))), mlflows(name)) == {}


@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_model_is_invoked_as_the_original(
    compiled: Callable[[str], Path], mlflows: Callable[[str], dict[str, Got]], name: str
) -> None:
    assert differing(invoke(application(compiled(name))), mlflows(name)) == {}


def test_the_compared_answers_are_of_every_kind(mlflows: Callable[[str], dict[str, Got]]) -> None:
    answers = mlflows("columns")
    assert {(answer.status, answer.content_type) for answer in answers.values()} == {
        (200, JSON),
        (400, JSON),
        (415, "text/plain; charset=utf-8"),
        (500, "text/plain; charset=utf-8"),
    }
    assert answers["JSON, split"].body == answers["CSV, a table"].body == answers["Parquet"].body
    scaled = json.loads(mlflows("params")["JSON, params"].body)
    assert scaled == {"predictions": [f"{row[0] * 10}km" for row in ROWS]}
    assert b"Traceback" in mlflows("raw")["JSON, inputs that are a number"].body
    assert b"Infinity" in mlflows("series")["JSON, inputs"].body


def test_ping_and_version_answer_with_the_bytes_of_mlflows_server(saved: Saved, bundle: Callable[..., Path]) -> None:
    with in_the_serving_environment():
        theirs = scoring_server.init(mlflow.pyfunc.load_model(str(saved("columns"))))
    asked = [("GET", path, None, b"") for path in ("/ping", "/version")]
    expected = [Got(200, JSON, b"\n"), Got(200, JSON, VERSION.encode())]
    assert ask(application(bundle("columns")), *asked) == ask(theirs, *asked) == expected


def test_a_served_model_answers_as_mlflow_models_serve(saved: Saved, bundle: Callable[..., Path]) -> None:
    names = ("JSON, split", "JSON, params", "JSON, params of another type", "JSON, cut off", "CSV, a table", "as None")
    with serving(bundle("params")) as url, mlflow_serves(Path(sys.executable), saved("params")) as theirs:
        for path in ("/ping", "/version"):
            assert got(httpx.get(url + path)) == got(httpx.get(theirs + path))
        for content_type, body in (REQUESTS[name] for name in names):
            ours, own = (
                httpx.post(f"{server}/invocations", content=body, headers=headers(content_type), timeout=60)
                for server in (url, theirs)
            )
            assert got(ours) == got(own)


LAZY = """
import json, sys
from pathlib import Path
from asgard.serving import handlers, loading
from asgard.serving.messages import Request
table = handlers.operations(loading.load(Path(sys.argv[1])))
answers = [table["/predict"].quick.one(Request(json.dumps({"data": [[1.0] * 5]}).encode()))]
answers += [table[path].server(Request(b"")) for path in ("/ping", "/version")]
before = "mlflow" in sys.modules
sent = Request(json.dumps({"inputs": [[1.0] * 5]}).encode(), {b"content-type": b"application/json"})
answers.append(table["/invocations"].model.one(sent))
print(json.dumps([before, "mlflow" in sys.modules, [answer.status for answer in answers]]))
"""


def test_a_compiled_model_loads_mlflow_for_its_first_invocation_and_not_before(compiled: Callable[[str], Path]) -> None:
    told = subprocess.check_output([sys.executable, "-W", "ignore", "-c", LAZY, compiled("tensor")], text=True)
    assert json.loads(told.splitlines()[-1]) == [False, True, [200] * 4]


def test_invocations_change_nothing_about_predict(bundle: Callable[..., Path]) -> None:
    predict = ("POST", "/predict", JSON, b'{"data": ["2026-11-24T12:00:00"]}')
    invocation = ("POST", "/invocations", JSON, b'{"inputs": ["2026-11-24T12:00:00"]}')
    before, invoked, after = ask(application(bundle("dates")), predict, invocation, predict)
    assert invoked == Got(200, JSON, b'{"predictions": ["datetime 2026-11-24 12:00:00"]}')
    assert before == after == Got(200, JSON, b'{"predictions":["datetime 2026-11-24 12:00:00"]}')


def test_without_mlflows_scoring_server_invocations_are_501_and_say_what_to_do(
    bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = application(bundle("columns"))
    monkeypatch.delattr(mlflow.pyfunc, "scoring_server")
    monkeypatch.setitem(sys.modules, "mlflow.pyfunc.scoring_server", None)
    invocation, predict = ask(
        served,
        ("POST", "/invocations", *REQUESTS["JSON, split"]),
        ("POST", "/predict", JSON, json.dumps({"data": ROWS}).encode()),
    )
    content = json.loads(invocation.body)
    assert (invocation.status, content["code"]) == (501, "no_scoring_server")
    assert "POST /predict" in content["detail"]
    assert "mlflow-skinny" in content["detail"]
    assert predict.status == 200


def test_an_original_that_cannot_be_loaded_fails_the_invocation_alone_and_is_tried_again(
    bundle: Callable[..., Path],
) -> None:
    loaded = loading.load(bundle("columns"))
    found = iter([OSError("a file is missing"), loaded.original()])

    def original() -> Any:
        if isinstance(following := next(found), Exception):
            raise following
        return following

    (served,) = of_model(replace(loaded, original=original))
    first, second = ask(served, *[("POST", "/invocations", *REQUESTS["JSON, split"])] * 2)
    assert (first.status, json.loads(first.body)["code"]) == (500, "model_failed")
    assert second.status == 200
