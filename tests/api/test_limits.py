"""Bodies that are too large, or never come."""

import socket
from collections.abc import Iterator

import httpx
import pytest
from pydantic_core import to_json

from asgard.settings import Settings

from .fake_platform import DEADLINE_SECONDS, EXAMPLE, FakePlatform, Running, post, running

LIMIT = 10_000


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), api_token=None, max_request_bytes=LIMIT)
    with running(settings, FakePlatform()) as server:
        yield server


def sized(size: int) -> bytes:
    body = to_json(EXAMPLE)
    return body + b" " * (size - len(body))


def connect(server: Running, head: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_SECONDS)
    client.sendall(
        f"POST /mlops/deploy HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{head}\r\n\r\n".encode()
    )
    return client


def read_all(client: socket.socket) -> bytes:
    """Until the server closes."""
    received = b""
    try:
        while part := client.recv(65536):
            received += part
    except ConnectionResetError:  # it closed on bytes it had not read
        pass
    client.close()
    return received


def test_a_body_of_the_limit_is_taken_and_one_byte_more_is_not(bounded: Running) -> None:
    headers = {"Content-Type": "application/json"}
    url = f"{bounded.url}/mlops/deploy"
    assert httpx.post(url, content=sized(LIMIT), headers=headers).status_code == 200
    answer = httpx.post(url, content=sized(LIMIT + 1), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
    assert "ASGARD_MAX_REQUEST_BYTES" in answer.json()["detail"]


def test_a_declared_length_past_the_limit_is_refused_before_a_byte_of_the_body_came(bounded: Running) -> None:
    received = read_all(connect(bounded, "Content-Length: 1000000000000"))
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"request_too_large" in received


def test_an_undeclared_length_is_counted_and_the_rest_is_not_read(bounded: Running) -> None:
    client = connect(bounded, "Transfer-Encoding: chunked")
    client.sendall(b"%x\r\n%s\r\n" % (LIMIT + 1, b" " * (LIMIT + 1)))  # and no last chunk
    received = read_all(client)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in received.lower()


def test_a_compressed_body_is_refused(bounded: Running) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = httpx.post(f"{bounded.url}/mlops/deploy", content=b"x", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_content")


def test_a_coding_that_is_none_is_taken_however_it_is_spelt(bounded: Running) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "Identity"}
    assert httpx.post(f"{bounded.url}/mlops/deploy", content=b"{}", headers=headers).status_code == 422


def test_a_body_that_breaks_off_runs_nothing_and_the_server_goes_on(server: Running, platform: FakePlatform) -> None:
    client = connect(server, "Content-Length: 100")
    client.sendall(b"{")
    client.close()
    assert post(server.url).status_code == 200
    assert len(platform.requests) == 1
