"""What HTTP asks of the server, whatever the model: bodies that are compressed, ids of requests, refusals."""

import asyncio
import gzip
import io
import json
import os
import random
import sys
import zlib
from collections.abc import Callable

import httpx
import pytest

from asgard.serving.application import BODY_LIMIT, Application, Exchange, inflates_to
from asgard.serving.asking import Asking, Operation
from asgard.serving.messages import Answer, Request
from asgard.serving.metrics import Metrics, SharedNumbers
from asgard.serving.options import NONE_ASKED, Options

from .http_server import client_of

Send = Callable[..., httpx.Response]


def echo(request: Request) -> Answer:
    return Answer(request.body)


@pytest.fixture
def send() -> Send:
    return server()


def server(options: Options = NONE_ASKED) -> Send:
    """One request to a server whose model answers with what it was sent."""
    operations = {
        "/predict": Operation("POST", model=Asking(echo, None)),
        "/health": Operation("GET", lambda _: Answer(b"{}")),
    }
    application = Application(operations, Metrics(SharedNumbers(1), 0, operations, {}), options)

    def once(method: str, path: str, content: bytes = b"", **headers: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with client_of(application) as client:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.request(method, path, content=content, headers=named)

        return asyncio.run(ask())

    return once


BODY = json.dumps({"data": [[1.0] * 5] * 40}).encode()


def raw_deflate(body: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(body) + deflater.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(BODY)),
        ("GZIP", gzip.compress(BODY)),
        ("gzip", gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])),
        ("deflate", zlib.compress(BODY)),
        ("deflate", raw_deflate(BODY)),
        ("identity", BODY),
    ],
    ids=["gzip", "GZIP", "gzip of two members", "deflate", "raw deflate", "identity"],
)
def test_a_compressed_body_is_read(send: Send, coding: str, body: bytes) -> None:
    assert send("POST", "/predict", body, content_encoding=coding).content == BODY


def test_members_are_read_wherever_one_begins(send: Send) -> None:
    parts = [random.Random(size).randbytes(size) for size in (0, 5000, 1, 20_000)]
    body = b"".join(map(gzip.compress, parts))
    assert send("POST", "/predict", body, content_encoding="gzip").content == b"".join(parts)


@pytest.mark.parametrize(
    "body",
    [b"no gzip", gzip.compress(BODY)[:-9], b"", gzip.compress(BODY) + b"more"],
    ids=["other", "cut off", "empty", "more"],
)
def test_a_body_that_is_not_what_it_says_is_400(send: Send, body: bytes) -> None:
    answer = send("POST", "/predict", body, content_encoding="gzip")
    assert (answer.status_code, answer.json()["code"]) == (400, "not_compressed")


def test_another_compression_is_415_and_the_answer_says_which_there_are(send: Send) -> None:
    answer = send("POST", "/predict", BODY, content_encoding="br")
    assert (answer.status_code, answer.json()["code"]) == (415, "unknown_content_encoding")
    assert answer.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("size", [BODY_LIMIT + 1, 20 * BODY_LIMIT])
def test_a_small_body_that_unpacks_to_a_large_one_is_413(send: Send, size: int) -> None:
    deflater = zlib.compressobj(wbits=31)
    packed = b"".join(deflater.compress(bytes(1024**2)) for _ in range(size // 1024**2)) + deflater.compress(b"x")
    answer = send("POST", "/predict", packed + deflater.flush(), content_encoding="gzip")
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_the_clients_id_of_a_request_comes_back_and_others_get_one(send: Send) -> None:
    assert send("POST", "/predict", BODY, x_request_id="mine-1").headers["x-request-id"] == "mine-1"
    made = {send("GET", "/health").headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3


def test_ids_of_processes_that_were_forked_differ() -> None:
    operations = {"/health": Operation("GET", lambda _: Answer(b""))}

    def made() -> bytes:
        application = Application(operations, Metrics(SharedNumbers(1), 0, operations, {}), NONE_ASKED)
        exchange = Exchange("GET", "/health", {}, 0.0)
        return application.head(exchange, Answer(b""), b"", close=False)

    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, made())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 4096) != made()


@pytest.mark.parametrize("odd", ["a b", "x" * 129, ""])
def test_an_id_that_does_not_belong_in_a_log_is_replaced(send: Send, odd: str) -> None:
    assert send("POST", "/predict", BODY, x_request_id=odd).headers["x-request-id"] not in (odd, odd.strip())


def test_the_trace_of_a_request_is_passed_on(send: Send) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert send("POST", "/predict", BODY, traceparent=trace).headers["traceparent"] == trace
    assert "traceparent" not in send("POST", "/predict", BODY).headers


def test_what_there_is_not_is_404_and_another_method_405(send: Send) -> None:
    assert send("GET", "/nothing").status_code == 404
    answer = send("GET", "/predict")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert send("HEAD", "/health").status_code == 200


def test_a_request_is_logged_under_its_id_where_that_was_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    logging = server(Options(access_log=True))
    logging("POST", "/predict", b"secret", x_request_id="mine", traceparent=trace)
    made = logging("GET", "/nothing").headers["x-request-id"]
    first, second = map(json.loads, capfd.readouterr().out.splitlines())
    assert {key: first[key] for key in ("method", "path", "status", "bytes", "request_id", "traceparent")} == {
        "method": "POST",
        "path": "/predict",
        "status": 200,
        "bytes": 6,
        "request_id": "mine",
        "traceparent": trace,
    }
    assert 0 <= first["seconds"] < 60
    assert (second["path"], second["status"], second["request_id"]) == ("/nothing", 404, made)
    server()("GET", "/health")
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, zlib.compress, raw_deflate, lambda body: gzip.compress(body[:1]) + gzip.compress(body[1:])],
    ids=["gzip", "deflate", "raw deflate", "gzip of two members"],
)
def test_what_a_body_inflates_to_is_known_before_it_is_inflated(compress: Callable[[bytes], bytes]) -> None:
    assert [inflates_to(size, compress(BODY)) for size in (len(BODY), len(BODY) + 1)] == [True, False]


def test_a_logged_request_is_one_write_as_other_processes_log_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Unbuffered(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    logging = server(Options(access_log=True))
    monkeypatch.setattr(sys, "stdout", Unbuffered())
    logging("GET", "/nothing")
    assert [text[-2:] for text in written] == ["}\n"]


PAGE = "https://shop.example.com"


@pytest.mark.parametrize(("origins", "told"), [({PAGE, "http://b"}, PAGE), ({"*"}, "*")])
def test_a_page_of_a_site_that_may_ask_gets_its_answer(origins: set[str], told: str) -> None:
    answer = server(Options(cors_origins=frozenset(origins)))("POST", "/predict", b"{}", origin=PAGE)
    assert answer.headers["access-control-allow-origin"] == told
    assert answer.headers["vary"] == "origin"
    assert "x-request-id" in answer.headers["access-control-expose-headers"]


def test_a_browser_that_asks_beforehand_is_told_what_it_may_send() -> None:
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "content-type"}
    answer = server(Options(cors_origins=frozenset({PAGE})))("OPTIONS", "/predict", origin=PAGE, **asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert answer.headers["access-control-allow-headers"] == "content-type"


@pytest.mark.parametrize("origins", [set(), {"https://other.example.com"}])
def test_pages_of_other_sites_may_not_ask(origins: set[str]) -> None:
    answer = server(Options(cors_origins=frozenset(origins)))("POST", "/predict", b"{}", origin=PAGE)
    assert not any(name.startswith("access-control-allow") for name in answer.headers)
