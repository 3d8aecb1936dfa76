"""Both clients against a real API and a real model server."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import httpx
import numpy as np
import pytest

from asgard import client
from asgard.api.errors import TABLE, InternalError, MethodNotAllowed, NotFound, row
from asgard.client import (
    AsyncClient,
    AuthorizationFailed,
    Client,
    ClientError,
    InvalidData,
    ModelFailed,
    ModelNotFound,
    NotAsgard,
    NotServing,
    OutOfSight,
    Overloaded,
    ProblemAnswered,
    Unavailable,
    Unreachable,
    transport,
)
from asgard.client.errors import BY_CODE, ModelProblem
from asgard.errors import AsgardError, TrackingUnavailable
from asgard.settings import Settings

from ..api.fake_platform import FakePlatform, Running, registered, running
from ..cli.processes import answering
from ..serving.http_server import serving
from ..serving.models import FRAME, X
from .conftest import Call


def test_models_a_model_and_the_status_are_what_the_api_says(call: Call, server: Running) -> None:
    said = {path: httpx.get(f"{server.url}/mlops/{path}").json() for path in ("models", "models/iris", "status")}
    assert [one.model_dump(mode="json") for one in call("models")] == said["models"]
    assert call("model", "iris").model_dump(mode="json") == said["models/iris"]
    assert call("status").model_dump(mode="json") == said["status"]


def test_a_name_that_needs_quoting_is_found(call: Call) -> None:
    assert call("model", "team/models/élan 50%").name == "team/models/élan 50%"


def test_problems_are_raised_as_the_class_of_their_code(call: Call, platform: FakePlatform) -> None:
    with pytest.raises(ModelNotFound) as caught:
        call("model", "never-seen")
    assert (caught.value.problem.status, caught.value.problem.code) == (404, "model_not_found")

    def fail() -> None:
        raise TrackingUnavailable("MLflow is starting.")

    platform.on_models = fail
    with pytest.raises(Unavailable, match=r"MLflow is starting\.") as unavailable:
        call("models")
    assert unavailable.value.problem.retry_after == 5


NEVER_MET = {AsgardError, InternalError, NotFound, MethodNotAllowed}
"""What no client can do anything about."""


@pytest.mark.parametrize("error", sorted(TABLE.keys() - NEVER_MET, key=str), ids=lambda error: error.__name__)
def test_every_code_of_the_api_has_a_class(error: type[AsgardError]) -> None:
    assert BY_CODE[row(error).code] is not ProblemAnswered


def test_the_token_goes_to_the_api_and_to_no_model(
    call: Call, platform: FakePlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bytes] = []
    with running(Settings.model_validate({"data_dir": tmp_path, "api_token": "right"}), platform) as guarded:
        assert call("status", url=guarded.url, token="right")
        for wrong in ("wrong", ""):
            with pytest.raises(AuthorizationFailed):
                call("status", url=guarded.url, token=wrong)
        with answering(b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"predictions":[]}', heard.append) as model:
            monkeypatch.setattr(platform, "model", served_at(model))
            assert call("predict", "iris", [[1]], url=guarded.url, token="right") == []
    assert b"right" not in b"".join(heard)
    assert heard[0].startswith(b"POST /predict ")


def served_at(url: str) -> Callable[[str], Any]:
    return lambda name: (replace(registered(name), tags={"asgard.inference_url": url}), [])


@pytest.mark.parametrize("cls", [Client, AsyncClient])
def test_address_and_token_are_the_environments_where_none_are_given(
    cls: type[Client | AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cls().url == Settings.model_fields["url"].default
    monkeypatch.setenv("ASGARD_URL", "http://elsewhere:1/")
    monkeypatch.setenv("ASGARD_API_TOKEN", "secret")
    assert cls().url == "http://elsewhere:1"
    assert cls()._api.headers["Authorization"] == "Bearer secret"
    assert "Authorization" not in cls(token="")._api.headers


@pytest.mark.parametrize("cls", [Client, AsyncClient])
def test_a_token_goes_without_the_end_of_the_file_that_it_was_in(cls: type[Client | AsyncClient]) -> None:
    assert cls(token="secret\n")._api.headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("token", ["gehe\u00edm", "se\ncret"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ValueError, match=r"^The API's token has characters beyond printable ASCII"):
        Client(token=token)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://127.0.0.1:notaport"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Client(url)


def test_rows_records_arrays_and_frames_are_predicted_alike(call: Call, model_url: str) -> None:
    expected = call("predict", model_url, X.tolist())
    assert len(expected) == len(X)
    for same in (FRAME, FRAME.to_dict("records"), X, FRAME[FRAME.columns[::-1]]):
        assert call("predict", model_url, same) == expected
    assert call("predict", f"{model_url}/predict", FRAME) == expected


def test_a_model_is_found_by_its_name(
    call: Call, platform: FakePlatform, model_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "model", served_at(model_url))
    assert call("predict", "iris", FRAME) == call("predict", model_url, FRAME)


def test_a_model_that_nothing_serves_is_told(call: Call) -> None:
    with pytest.raises(NotServing, match="'iris'"):
        call("predict", "iris", [[1]])
    with pytest.raises(ModelNotFound):
        call("predict", "never-seen", [[1]])


def test_rows_that_do_not_fit_are_told_with_their_place(call: Call, model_url: str) -> None:
    with pytest.raises(InvalidData, match="Missing column 'e'") as caught:
        call("predict", model_url, FRAME.drop(columns="e"))
    assert caught.value.problem.status == 422
    assert caught.value.problem.pointer == "/data/0"


def test_a_model_that_raises_is_told(call: Call, bundle: Callable[[str], Path]) -> None:
    with serving(bundle("obedient")) as url, pytest.raises(ModelFailed, match="RuntimeError"):
        call("predict", url, np.array([[-1.0]]))


def test_a_model_that_is_overloaded_is_told_with_when_to_try_again() -> None:
    problem = {"type": "about:blank", "title": "Busy", "status": 503, "detail": "Later.", "code": "overloaded"}
    headers = {"Content-Type": "application/problem+json", "Retry-After": "1"}
    with pytest.raises(Overloaded) as caught:
        transport.check(httpx.Response(503, headers=headers, json=problem))
    assert caught.value.problem.retry_after == 1


def test_a_model_server_that_is_gone_is_unreachable(call: Call, bundle: Callable[[str], Path]) -> None:
    with serving(bundle("columns")) as url:
        pass
    with pytest.raises(Unreachable, match=url):
        call("predict", url, FRAME)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a": 1}',
        b"HTTP/1.1 400 Bad\r\nContent-Type: application/problem+json\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_answers_of_others_are_told_as_such(call: Call, head: bytes) -> None:
    with answering(head) as url, pytest.raises(NotAsgard, match=url):
        call("status", url=url)


def test_a_proxy_is_not_asked_for_this_machine(call: Call, model_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert call("status")
    assert call("predict", model_url, FRAME)


def test_both_clients_take_and_give_the_same() -> None:
    def methods(cls: type) -> dict[str, Any]:
        public = {name: member for name, member in vars(cls).items() if name[0] != "_" and not name.endswith("close")}
        return {name: get_type_hints(member, localns={"Rows": Any}) for name, member in public.items()}

    assert methods(Client) == methods(AsyncClient)
    assert methods(Client).keys() == {"deploy", "models", "model", "status", "predict"}


def test_importing_the_client_brings_nothing_of_the_servers() -> None:
    program = """
import sys, asgard.client
loaded = {name.partition(".")[0] for name in sys.modules}
print(*sorted(loaded & {"fastapi", "starlette", "uvicorn", "mlflow", "pulumi", "pandas", "numpy", "typer", "boto3"}))
print(*sorted(name for name in sys.modules if name.startswith("asgard.") and name.count(".") == 1))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "asgard.answers asgard.client asgard.naming asgard.progress"]


def test_all_that_can_be_raised_is_exported() -> None:
    assert {error.__name__ for error in BY_CODE.values()} <= set(client.__all__)


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize(
    "error",
    [
        InvalidData(ModelProblem(type="a", title="b", status=422, detail="c", code="invalid_data", pointer="/data/0")),
        OutOfSight("iris", "It is silent."),
        Unreachable("Nothing answers."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_raised_in_another_process_reaches_this_one(
    error: ClientError, again: Callable[[ClientError], ClientError]
) -> None:
    error.add_note("Of the third row.")
    same = again(error)
    assert (type(same), str(same), vars(same)) == (type(error), str(error), vars(error))
