"""Asks a server at a steady rate, whether it keeps up or not, by as many connections as it takes, up to a number.

    python bench/open_loop.py URL BODY RATE SECONDS CONNECTIONS

Prints JSON: milliseconds that each answer took, by status. Tools that wait for an answer before they ask again, on each
connection, ask a server that is overloaded in bursts.
"""

import asyncio
import json
import sys
import time
from collections import defaultdict, deque
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop

from asgard.serving.processes import allow_files

OPENED_AT_ONCE = 50
LAST_SECONDS = 10.0
"""How long the last answers may take."""


class Client(asyncio.Protocol):
    """A connection, which is in `free` while nothing is asked on it."""

    _transport: asyncio.Transport

    def __init__(self, free: deque["Client"], taken: dict[int, list[float]]) -> None:
        self._free = free
        self._taken = taken
        self._parser = httptools.HttpResponseParser(self)
        self._asked = 0.0

    def ask(self, request: bytes) -> None:
        self._asked = time.perf_counter()
        self._transport.write(request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._free.append(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._taken[self._parser.get_status_code()].append(1000 * (time.perf_counter() - self._asked))
        self._free.append(self)


async def ask(url: str, body: str, rate: float, seconds: float, connections: int) -> dict[int, list[float]]:
    """Raises TimeoutError where a request has no answer, and RuntimeError where no connection is free for one."""
    parts, free = urlsplit(url), deque[Client]()
    taken = defaultdict[int, list[float]](list)
    head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()
    loop = asyncio.get_running_loop()
    for _ in range(0, connections, OPENED_AT_ONCE):
        opening = (
            loop.create_connection(lambda: Client(free, taken), parts.hostname or "", parts.port or 80)
            for _ in range(OPENED_AT_ONCE)
        )
        await asyncio.gather(*opening)
    began, asked, wanted = time.perf_counter(), 0, int(rate * seconds)
    while asked < wanted:
        due = min(wanted, int((time.perf_counter() - began) * rate))
        for _ in range(due - asked):
            if not free:
                raise RuntimeError(f"No connection is free: all {connections} wait for an answer.")
            free.popleft().ask(request)
        asked = due
        await asyncio.sleep(0.001)
    async with asyncio.timeout(LAST_SECONDS):
        while sum(map(len, taken.values())) < asked:
            await asyncio.sleep(0.01)
    return taken


if __name__ == "__main__":
    allow_files()  # a connection is one
    asked_url, asked_body, *numbers = sys.argv[1:]
    print(json.dumps(uvloop.run(ask(asked_url, asked_body, float(numbers[0]), float(numbers[1]), int(numbers[2])))))
