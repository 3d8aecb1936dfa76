"""Requests with a head that has come before are answered as they were the first time, however they come."""

import asyncio
import re
from typing import Any

import pytest

from asgard.serving.http_connection import Connection
from asgard.serving.http_server import Server
from asgard.serving.known_heads import HEAD_BYTES, HEADS, Head, KnownHeads

from .test_http_connection import Gate, application, ask

HEADERS = {b"content-length": b"3"}
REQUEST = b"POST /predict HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc"


def known(heads: KnownHeads, data: bytes) -> bool:
    return heads.find(data) is not None


def test_a_head_is_known_with_any_body_of_its_length() -> None:
    heads = KnownHeads()
    assert not known(heads, REQUEST)
    heads.remember(REQUEST, "POST", "/predict", HEADERS)
    assert heads.find(REQUEST[:-3] + b"xyz") == (Head("POST", "/predict", HEADERS, 3), b"xyz")


@pytest.mark.parametrize(
    "data", [REQUEST[:-1], REQUEST + b"d", REQUEST * 2, REQUEST[1:], REQUEST[:-3], b"", b"\r\n\r\n"]
)
def test_all_but_one_whole_request_with_it_is_parsed(data: bytes) -> None:
    heads = KnownHeads()
    heads.remember(REQUEST, "POST", "/predict", HEADERS)
    assert not known(heads, data)


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcPOST", HEADERS),
        (b"\r\n\r\n" + REQUEST, HEADERS),
        (b"POST / HTTP/1.1\ncontent-length: 6\n\na\r\n\r\nb", {b"content-length": b"6"}),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", {b"transfer-encoding": b"chunked"}),
        (b"POST / HTTP/1.1\r\nexpect: 100-continue\r\n\r\n", {b"expect": b"100-continue"}),
        (b"GET / HTTP/1.1\r\nupgrade: h2c\r\n\r\n", {b"upgrade": b"h2c"}),
        (b"GET /" + b"x" * HEAD_BYTES + b" HTTP/1.1\r\n\r\n", {}),
    ],
    ids=["followed", "preceded", "lines that end otherwise", "chunked", "expecting", "upgrading", "long"],
)
def test_only_a_head_that_says_all_is_remembered(data: bytes, headers: dict[bytes, bytes]) -> None:
    heads = KnownHeads()
    heads.remember(data, "POST", "/", headers)
    assert not known(heads, data)


def test_so_many_heads_are_known_and_no_more() -> None:
    heads = KnownHeads()
    for number in range(3 * HEADS):
        heads.remember(b"GET /%d HTTP/1.1\r\n\r\n" % number, "GET", f"/{number}", {})
        assert known(heads, b"GET /%d HTTP/1.1\r\n\r\n" % number)
        assert len(heads._heads) <= HEADS


SEQUENCES = {
    "one": [ask()],
    "in two pieces": [ask(body=b"abc")[:-2], ask(body=b"abc")[-2:]],
    "head and body apart": [ask(body=b"abc")[:-3], b"abc"],
    "together": [ask() * 3],
    "a whole one after half": [ask(body=b"abc")[:-1], b"c" + ask(body=b"abc"), ask(body=b"xyz")],
    "a body that is a request": [ask(body=ask())],
    "half of one in a body": [ask(body=ask(body=b"12345678"))[:-4], b"5678"],
    "without a body": [ask("/health", b"", method="GET"), ask("/health", b"", method="HEAD"), ask()],
    "closing": [ask("/predict", b"x", "connection: close"), ask()],
    "chunked": [b"POST /predict HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", ask()],
    "an upgrade": [ask("/predict", b"x", "upgrade: h2c", "connection: upgrade"), ask()],
    "of another version": [b"POST /predict HTTP/1.0\r\ncontent-length: 1\r\n\r\nx"],
    "not there": [ask("/nowhere"), ask("/predict", method="GET")],
    "too long": [b"POST /predict HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n"],
    "nonsense after one": [ask(), b"nonsense\r\n\r\n"],
}


class Written(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""

    def write(self, data: Any) -> None:
        self.said += data

    def write_eof(self) -> None:
        self.said += b"the end"

    def close(self) -> None:
        self.said += b"closed"

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False


@pytest.mark.parametrize("name", SEQUENCES)
def test_what_is_asked_again_is_answered_again(name: str) -> None:
    gate = Gate()
    served = application(gate)

    async def said() -> list[tuple[bytes, list[bytes]]]:
        server, found = Server([served], lambda _: None), []
        for _ in range(3):
            transport, connection = Written(), Connection(served, server)
            connection.connection_made(transport)
            for piece in SEQUENCES[name]:
                connection.data_received(piece)
            connection.connection_lost(None)
            found.append((re.sub(rb"(date|x-request-id): .*", b"", transport.said), gate.asked[:]))
            gate.asked.clear()
        return found

    first, second, third = asyncio.run(said())
    assert first[0]
    assert first == second == third
