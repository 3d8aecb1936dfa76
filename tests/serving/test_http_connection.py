"""HTTP/1.1 as clients speak it, well or badly: over sockets, byte by byte."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime

import httpx
import pytest

from asgard.serving import http_connection
from asgard.serving.application import BODY_LIMIT, Application
from asgard.serving.asking import Asking, Operation
from asgard.serving.http_connection import HEAD_LIMIT
from asgard.serving.http_server import Server
from asgard.serving.messages import Answer, Request
from asgard.serving.metrics import Metrics, SharedNumbers
from asgard.serving.options import Options

from ..waiting import until
from .http_server import listening

Connect = Callable[[], socket.socket]


class Gate:
    """A model that answers with what it was sent; to `wait`, as soon as the gate is open."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked: list[bytes] = []

    def __call__(self, request: Request) -> Answer:
        self.asked.append(request.body)
        if request.body == b"wait":
            assert self.open.wait(60)
        return Answer(request.body)


def application(gate: Gate, options: Options | None = None) -> Application:
    asking = Asking(gate, None)
    operations = {
        "/predict": Operation("POST", model=asking, quick=asking),
        "/beside": Operation("POST", model=asking),
        "/health": Operation("GET", lambda _: Answer(b"{}")),
        "/a b": Operation("GET", lambda _: Answer(b"spaced")),
    }
    metrics = Metrics(
        SharedNumbers(1), 0, operations, dict.fromkeys(("name", "version", "run_id", "deployment_id", "flavor"), "")
    )
    return Application(operations, metrics, options or Options())


@pytest.fixture
def gate() -> Iterator[Gate]:
    found = Gate()
    yield found
    found.open.set()


@pytest.fixture
def served(gate: Gate) -> Application:
    return application(gate)


@pytest.fixture
def port(served: Application) -> Iterator[int]:
    with listening([served]) as (found,):
        yield found


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        yield connection


def ask(path: str = "/predict", body: bytes = b"x", *lines: str, method: str = "POST") -> bytes:
    head = "".join(f"{line}\r\n" for line in ("host: x", f"content-length: {len(body)}", *lines))
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def answers(connection: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """Status and body of so many answers; fewer where the connection ends before."""
    stream = connection.makefile("rb")
    found: list[tuple[int, bytes]] = []
    while len(found) < count and (first := stream.readline()):
        length = 0
        while (line := stream.readline().strip().lower()) != b"":
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        found.append((int(first.split()[1]), stream.read(length)))
    return found


def exchanged(port: int, sent: bytes, count: int = 1) -> list[tuple[int, bytes]]:
    with connected(port) as connection:
        connection.sendall(sent)
        return answers(connection, count)


def test_one_connection_carries_many_requests(port: int) -> None:
    with connected(port) as connection:
        for number in range(3):
            connection.sendall(ask(body=b"%d" % number))
            assert answers(connection, 1) == [(200, b"%d" % number)]


def test_a_request_may_come_byte_by_byte(port: int) -> None:
    with connected(port) as connection:
        for byte in ask(body=b"slow", path="/predict?x=%20"):
            connection.sendall(bytes([byte]))
        assert answers(connection, 1) == [(200, b"slow")]


def test_requests_that_come_together_are_answered_in_their_order(port: int, gate: Gate) -> None:
    paths = ["/beside", "/predict", "/health", "/beside", "/predict"]
    bodies = [b"wait", b"1", b"2", b"3", b"4"]
    sent = [
        ask(path, body, method="GET" if path == "/health" else "POST") for path, body in zip(paths, bodies, strict=True)
    ]
    with connected(port) as connection:
        connection.sendall(b"".join(sent))
        until(lambda: gate.asked == [b"wait"])
        gate.open.set()
        assert [body for _, body in answers(connection, 5)] == [b"wait", b"1", b"{}", b"3", b"4"]


def test_a_thousand_requests_may_come_together(port: int) -> None:
    sent = [ask(body=b"%d" % number) for number in range(1000)]
    assert [body for _, body in exchanged(port, b"".join(sent), 1000)] == [b"%d" % number for number in range(1000)]


def test_a_client_that_asks_and_does_not_read_is_not_read_from(port: int) -> None:
    body = b"x" * 100_000
    with connected(port) as connection:
        connection.settimeout(2)
        request, sent, last = ask(body=body), 0, 0
        with suppress(TimeoutError):
            while sent < 10_000:  # requests; the sockets hold a few hundred
                last = 0
                while last < len(request):
                    last += connection.send(request[last:])
                sent += 1
        assert sent < 10_000
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        connection.settimeout(60)
        assert answers(connection, sent) == [(200, body)] * sent
        connection.sendall(request[last:])
        assert answers(connection, 1) == [(200, body)]


def test_a_body_may_come_in_chunks_with_a_trailer(port: int) -> None:
    chunks = b"3\r\nabc\r\n2\r\nde\r\n0\r\ncontent-encoding: gzip\r\n\r\n"
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    assert exchanged(port, head + chunks) == [(200, b"abcde")]


def test_a_client_that_waits_to_be_told_to_go_on_is_told(port: int) -> None:
    with connected(port) as connection:
        head, _, body = ask("/predict", b"abc", "expect: 100-continue").partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert answers(connection, 1) == [(200, b"abc")]


def test_a_body_that_is_too_large_is_refused_before_it_comes(port: int) -> None:
    with connected(port) as connection:
        head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {BODY_LIMIT + 1}\r\nexpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        ((status, body),) = answers(connection, 1)
        assert (status, json.loads(body)["code"]) == (413, "too_large")
        assert connection.recv(1) == b""


def test_who_is_refused_while_sending_can_read_why(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (BODY_LIMIT + 1))
        for _ in range(32):
            connection.sendall(b"x" * 1024**2)
        assert answers(connection, 2)[0][0] == 413


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nhost: x\r\nlong: " + b"x" * HEAD_LIMIT + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(20_000)) + b"\r\n",
        b"GET /" + b"x" * 4 * HEAD_LIMIT,
    ],
    ids=["one header", "many headers", "a path"],
)
def test_a_head_without_end_is_refused(port: int, head: bytes) -> None:
    with connected(port) as connection:
        for begin in range(0, len(head), 16 * 1024):
            connection.sendall(head[begin : begin + 16 * 1024])
        ((status, body),) = answers(connection, 1)
        assert (status, json.loads(body)["code"]) == (431, "head_too_large")


def test_a_head_within_the_limit_may_come_in_pieces(port: int) -> None:
    request = ask("/predict", b"x", *(f"x-{number}: {'y' * 1000}" for number in range(HEAD_LIMIT // 1024)))
    with connected(port) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin in range(0, len(request), 8192):
            connection.sendall(request[begin : begin + 8192])
            time.sleep(0.01)
        assert answers(connection, 1) == [(200, b"x")]


def test_a_trailer_without_end_is_refused(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nt: ")
        for _ in range(4 * HEAD_LIMIT // 1024):
            connection.sendall(b"y" * 1024)
        assert answers(connection, 1)[0][0] == 431


def test_a_client_of_http_1_0_is_not_told_to_go_on(port: int) -> None:
    request = b"POST /predict HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n"
    with connected(port) as connection:
        connection.sendall(request)
        time.sleep(0.1)
        connection.sendall(b"x")
        assert answers(connection, 9) == [(200, b"x")]


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00", b"hello\r\n\r\n", b"GET /health HTTP/9.9\r\n\r\n"])
def test_what_is_not_http_is_400_and_closes(port: int, sent: bytes) -> None:
    (first,) = exchanged(port, sent, count=2)
    assert (first[0], json.loads(first[1])["code"]) == (400, "bad_request")


def test_what_was_asked_before_something_bad_is_answered_first(port: int) -> None:
    found = exchanged(port, ask() + ask() + b"nonsense\r\n\r\n" + ask(), count=9)
    assert [status for status, _ in found] == [200, 200, 400]


def test_it_is_no_proxy(port: int) -> None:
    found = exchanged(port, b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n", count=2)
    assert [status for status, _ in found] == [400]


def test_two_lengths_are_refused_as_they_may_hide_a_request(port: int) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"
    assert exchanged(port, head + b"0\r\n\r\n", count=2)[0][0] == 400


def test_an_offer_of_another_protocol_is_ignored(port: int) -> None:
    offer = ("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")
    for method, path, body in (("POST", "/predict", b"abc"), ("GET", "/health", b"")):
        expected = (200, body or b"{}")
        assert exchanged(port, ask(path, body, *offer, method=method) + ask(body=b"y"), 2) == [expected, (200, b"y")]


def test_who_offers_another_protocol_and_sends_too_much_is_told_so(port: int) -> None:
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {BODY_LIMIT + 1}\r\n"
    ((status, body),) = exchanged(port, f"{head}connection: upgrade\r\nupgrade: h2c\r\n\r\n".encode(), 2)
    assert (status, json.loads(body)["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/health?x=1", 200),
        ("http://model.example/health?x=1", 200),
        ("/a%20b", 200),
        ("/%C3%A9", 404),
        ("/%FF", 404),
        ("*", 404),
        ("http://model.example", 404),
    ],
)
def test_a_target_has_any_form(port: int, target: str, status: int) -> None:
    assert exchanged(port, ask(target, b"", method="GET"))[0][0] == status


@pytest.mark.parametrize(
    "request_",
    [
        ask("/predict", b"x", "connection: close"),
        ask("/predict", b"x", "connection: close, upgrade", "upgrade: h2c"),
        b"POST /predict HTTP/1.0\r\ncontent-length: 1\r\n\r\nx",
        b"POST /predict HTTP/1.0\r\ncontent-length: 1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nx",
    ],
)
def test_a_connection_ends_where_the_client_asks_for_no_more(port: int, request_: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(request_)
        said = b""
        while more := connection.recv(1000):
            said += more
    assert b"\r\nconnection: close\r\n" in said
    assert said.endswith(b"\r\n\r\nx")


def test_an_answer_to_head_has_the_length_of_the_body_and_none(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(ask("/health", b"", method="HEAD") + ask("/predict", b"y", "connection: close"))
        said = b""
        while more := connection.recv(1000):
            said += more
    head, _, rest = said.partition(b"\r\n\r\n")
    assert b"content-length: 2" in head
    assert rest.startswith(b"HTTP/1.1 200 ")


def test_every_answer_has_a_date(port: int) -> None:
    assert httpx.get(f"http://127.0.0.1:{port}/health").headers["date"].endswith(" GMT")


def test_a_client_that_leaves_is_no_longer_counted_as_in_flight(port: int, served: Application, gate: Gate) -> None:
    def in_flight() -> bytes:
        (line,) = [line for line in served.metrics.text().split(b"\n") if line.startswith(b"asgard_requests_in_flight")]
        return line.split()[1]

    with connected(port) as connection:
        connection.sendall(ask("/beside", b"wait") + b"POST /predict HTTP/1.1\r\ncontent-length: 5\r\n\r\nx")
        until(lambda: gate.asked == [b"wait"])
        assert int(in_flight()) > 0
    until(lambda: in_flight() == b"0")
    gate.open.set()
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200


def test_what_fails_in_the_server_is_500_and_the_connection_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def fail(request: Request) -> Answer:
        raise ZeroDivisionError(request.body)

    asking = Asking(fail, None)
    operations = {"/predict": Operation("POST", model=asking, quick=asking), "/beside": Operation("POST", model=asking)}
    failing = Application(operations, Metrics(SharedNumbers(1), 0, operations, {}))
    with listening([failing]) as (port,), connected(port) as connection:
        for path in ("/predict", "/beside"):
            connection.sendall(ask(path))
            ((status, body),) = answers(connection, 1)
            assert (status, json.loads(body)["code"]) == (500, "internal_error")
    assert "ZeroDivisionError" in caplog.text


def test_the_date_is_right_also_when_nobody_was_connected_for_a_while(port: int) -> None:
    for _ in range(2):
        with connected(port) as connection:
            connection.sendall(ask())
            head = connection.recv(64 * 1024).decode()
        date = next(line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("date: "))
        assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 2
        time.sleep(2.5)


def test_a_connection_on_which_nothing_moves_is_closed(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    monkeypatch.setattr(http_connection, "IDLE_SECONDS", 0.5)
    with (
        listening([application(gate)]) as (port,),
        connected(port) as idle,
        connected(port) as halfway,
        connected(port) as waiting,
    ):
        idle.sendall(ask())
        assert answers(idle, 1) == [(200, b"x")]
        halfway.sendall(ask(body=b"xyz")[:-1])
        waiting.sendall(ask("/beside", b"wait"))
        assert idle.recv(1) == halfway.recv(1) == b""
        gate.open.set()
        assert answers(waiting, 1) == [(200, b"wait")]


def test_who_reads_a_long_answer_slowly_gets_all_of_it(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    monkeypatch.setattr(http_connection, "IDLE_SECONDS", 2.5)
    body = b"x" * (24 << 20)
    with listening([application(gate)]) as (port,), socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        slow.connect(("127.0.0.1", port))
        slow.sendall(ask("/predict", body, "connection: close"))
        read = 0
        while more := slow.recv(1 << 20):
            read += len(more)
            time.sleep(len(more) / (4 << 20))
    assert read > len(body)


def test_metrics_with_a_port_of_their_own_are_there_alone(gate: Gate) -> None:
    model = application(gate)
    scraped = Application({"/metrics": Operation("GET", lambda _: Answer(b"metrics"))}, model.metrics)
    with listening([model, scraped]) as ports:
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        found = [[httpx.get(url + path).status_code for path in ("/health", "/metrics")] for url in urls]
    assert found == [[200, 404], [404, 200]]


def test_a_server_that_drains_answers_on_open_connections_and_then_ends(served: Application) -> None:
    told: list[str] = []

    async def run() -> list[tuple[int, str | None]]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = Server([served], told.append)
            serving = asyncio.ensure_future(server.serve([listener]))
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
                first = await client.get("/health")
                server.drain()
                while told != ["serving", "draining"]:
                    await asyncio.sleep(0.01)
                last = await client.get("/health")
                await asyncio.wait_for(serving, 60)
                return [(answer.status_code, answer.headers.get("connection")) for answer in (first, last)]

    assert asyncio.run(run()) == [(200, None), (200, "close")]
