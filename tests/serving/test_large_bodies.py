"""Large bodies are read by a second process of a worker, so that others do not wait for it."""

import gzip
import os
import re
import signal
import socket
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import httpx
import orjson
import psutil
import pytest

from asgard.serving import processes
from asgard.serving.http_connection import LARGE_BYTES

from ..waiting import until
from .parents import Model, Parents

ROWS = [[0.25, 1.5, -2.0, 3.0, 0.125]] * 20_000
LARGE = orjson.dumps({"data": ROWS})
HEAD = b"POST /predict HTTP/1.1\r\n%%bcontent-length: %d\r\n\r\n" % len(LARGE)
COMPRESSED = b"POST /predict HTTP/1.1\r\ncontent-encoding: %b\r\ncontent-length: %d\r\n\r\n"
HEALTH = b"GET /health HTTP/1.1\r\n%b\r\n"


@pytest.fixture
def model(parents: Parents, compiled: Callable[[str], Path]) -> Model:
    """A compiled forest with one worker."""
    started = parents.model()
    started.apply(bundle=str(compiled("specification")))
    return started


def test_a_large_body_is_answered_by_another_process_as_a_small_one_is_by_the_worker(model: Model) -> None:
    with httpx.Client(base_url=model.url, timeout=60) as client:
        assert pid(client) in model.status().worker_pids
        (expected,) = client.post("/predict", json={"data": ROWS[:1]}).json()["predictions"]
        assert len(LARGE) > LARGE_BYTES
        answer = client.post("/predict", content=LARGE)
        assert answer.json() == {"predictions": [expected] * len(ROWS)}
        assert pid(client) not in model.status().worker_pids


def test_a_body_of_unknown_length_is_too(model: Model) -> None:
    with httpx.Client(base_url=model.url, timeout=60) as client:
        pieces = (LARGE[begin : begin + 100_000] for begin in range(0, len(LARGE), 100_000))
        assert len(client.post("/predict", content=pieces).json()["predictions"]) == len(ROWS)
        assert pid(client) not in model.status().worker_pids


def test_a_client_that_waits_until_it_may_send_its_body_is_told_so_once(model: Model) -> None:
    with socket.create_connection(("127.0.0.1", model.port), timeout=60) as client:
        client.sendall(HEAD % b"expect: 100-continue\r\n")
        told = client.recv(1000)
        client.sendall(LARGE + HEALTH % b"connection: close\r\n")
        answers = client.makefile("rb").read()
    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answers.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answers.endswith(b'"worker_pid":%d}' % second_of(model))


@pytest.mark.parametrize(("coding", "compress"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_a_compressed_body_is_told_by_what_it_inflates_to(
    model: Model, coding: bytes, compress: Callable[[bytes], bytes]
) -> None:
    (worker,) = model.status().worker_pids
    for rows, process in ((ROWS, second_of(model)), (ROWS[:1000], worker)):
        body = compress(orjson.dumps({"data": rows}))
        request = COMPRESSED % (coding, len(body)) + body
        for pieces in ([request], [request[:10], request[10:200], request[200:]]):
            with socket.create_connection(("127.0.0.1", model.port), timeout=60) as client:
                for piece in pieces:
                    client.sendall(piece)
                    time.sleep(0.02)
                first, second = answers_to(client)
            assert len(orjson.loads(first)["predictions"]) == len(rows)
            assert orjson.loads(second)["worker_pid"] == process


def test_what_came_with_a_compressed_body_is_answered_in_order(model: Model) -> None:
    body = gzip.compress(LARGE)
    with socket.create_connection(("127.0.0.1", model.port), timeout=60) as client:
        client.sendall(COMPRESSED % (b"gzip", len(body)) + body + HEALTH % b"")
        first, second, third = answers_to(client)
    assert len(orjson.loads(first)["predictions"]) == len(ROWS)
    assert orjson.loads(second) == orjson.loads(third)
    assert orjson.loads(second)["worker_pid"] in model.status().worker_pids


def test_a_compressed_body_that_is_none_is_told_so(model: Model) -> None:
    answer = httpx.post(f"{model.url}/predict", content=LARGE[:1000], headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (400, "not_compressed")


def test_clients_that_leave_harm_no_other(model: Model) -> None:
    for sent in (b"", LARGE[:1000], LARGE):
        for _ in range(10):
            with socket.create_connection(("127.0.0.1", model.port), timeout=60) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(HEAD % b"" + sent)
    assert answering(model) == second_of(model)
    assert "Traceback" not in model.log()


def test_what_is_asked_before_and_after_on_the_same_connection_is_answered_in_order(model: Model) -> None:
    with socket.create_connection(("127.0.0.1", model.port), timeout=60) as client:
        client.sendall(HEALTH % b"" + HEAD % b"" + LARGE + HEALTH % b"connection: close\r\n")
        answers = client.makefile("rb").read()
    places = [answers.index(part) for part in (b"worker_pid", b"predictions")]
    assert places == sorted(places)
    assert answers.count(b"worker_pid") == 2


def test_a_worker_answers_large_bodies_itself_when_its_second_process_is_gone(model: Model) -> None:
    second = answering(model)
    os.kill(second, signal.SIGKILL)
    until(lambda: not processes.alive(second))
    assert answering(model) == model.status().worker_pids[0]


def test_a_large_body_that_is_on_its_way_is_answered_by_the_version_that_began(
    model: Model, compiled: Callable[[str], Path]
) -> None:
    with socket.create_connection(("127.0.0.1", model.port), timeout=60) as client:
        client.sendall(HEAD % b"connection: close\r\n" + LARGE[:1000])
        former = second_of(model)
        until(lambda: len(psutil.Process(former).net_connections("tcp")) == 1)
        model.apply(version=2, bundle=str(compiled("specification")), environment={"CHANGED": "1"})
        client.sendall(LARGE[1000:])
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(orjson.loads(answer.partition(b"\r\n\r\n")[2])["predictions"]) == len(ROWS)
    until(lambda: not processes.alive(former))


@pytest.mark.parametrize("end", [Model.stop, lambda model: os.kill(model.status().worker_pids[0], signal.SIGKILL)])
@pytest.mark.parametrize("woken", [True, False])
def test_it_ends_with_its_worker(model: Model, woken: bool, end: Callable[[Model], None]) -> None:
    (worker,) = model.status().worker_pids
    second = second_of(model)
    with httpx.Client(base_url=model.url, timeout=60) as client:
        if woken:
            client.post("/predict", content=LARGE)
            assert pid(client) == second
        end(model)
        until(lambda: not processes.alive(worker) and not processes.alive(second))


def test_its_requests_are_counted_with_the_others(model: Model) -> None:
    httpx.post(f"{model.url}/predict", content=LARGE, timeout=60)
    model.predict(*ROWS[0])
    assert 'asgard_requests_total{path="/predict",status="200"} 2\n' in httpx.get(f"{model.url}/metrics").text


def test_its_memory_counts_where_it_is_its_own(model: Model) -> None:
    (worker,) = model.status().worker_pids
    asleep = processes.taken_bytes(worker)
    assert processes.resident_bytes(worker) - asleep > 16 << 20
    httpx.post(f"{model.url}/predict", content=LARGE, timeout=60)
    assert processes.taken_bytes(worker) - asleep > 4 << 20


def test_so_it_is_for_a_model_of_a_known_library_that_is_not_compiled(parents: Parents) -> None:
    model = parents.model()
    model.apply("specification")
    assert answering(model) == second_of(model)


def test_that_of_any_other_model_loads_it_first(parents: Parents) -> None:
    model = parents.model()
    model.apply("sizes")
    assert answering(model) == second_of(model)


def test_who_waits_for_that_and_leaves_harms_no_other(parents: Parents) -> None:
    model = parents.model()
    model.apply("sizes")
    for sent in (b"", LARGE):
        with socket.create_connection(("127.0.0.1", model.port), timeout=60) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(HEAD % b"" + sent)
            time.sleep(0.02)
    assert answering(model) == second_of(model)
    assert "Traceback" not in model.log()


def test_a_model_that_takes_much_of_its_memory_limit_to_load_is_not_loaded_twice(parents: Parents) -> None:
    model = parents.model()
    model.apply("heavy")
    assert answering(model) == second_of(model)
    model.apply("heavy", memory_limit_bytes=400 << 20)
    assert [*processes.tree(model.status().worker_pids[0])] == [*model.status().worker_pids]


def test_a_model_that_cannot_be_loaded_twice_is_served_by_the_worker_alone(parents: Parents, tmp_path: Path) -> None:
    model = parents.model()
    model.apply("alone", environment={"ALONE": tmp_path.name})
    second = second_of(model)
    assert answering(model) == model.status().worker_pids[0]
    until(lambda: not processes.alive(second))
    assert answering(model) == model.status().worker_pids[0]
    assert "Address already in use" in model.log()


def answering(model: Model) -> int:
    """The process that answers on a connection on which a large body is sent."""
    with httpx.Client(base_url=model.url, timeout=60) as client:
        assert len(client.post("/predict", content=LARGE).json()["predictions"]) == len(ROWS)
        return pid(client)


def answers_to(client: socket.socket) -> list[bytes]:
    """The bodies of the answers to what was asked, and to a last request that is sent when the first has come."""
    client.recv(1, socket.MSG_PEEK)
    client.sendall(HEALTH % b"connection: close\r\n")
    return re.findall(rb"\r\n\r\n(.*?)(?=HTTP/1.1 |$)", client.makefile("rb").read(), re.DOTALL)


def second_of(model: Model) -> int:
    """The second process of the model's only worker."""
    (worker,) = model.status().worker_pids
    (second,) = set(processes.tree(worker)) - {worker}
    return second


def pid(client: httpx.Client) -> int:
    """Of the process that answers on the client's connection."""
    found: int = client.get("/health").json()["worker_pid"]
    return found
