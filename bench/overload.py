"""Our model server under more than it can answer, and beside clients that are slow or send much.

    uv run python bench/overload.py [--seconds 3] [--publish]

Overload: a forest that is neither compiled nor batched, asked by `open_loop.py` for twice of what it answers to 32
clients (`wrk`). Bad company: that and the compiled forest with 32 connections (`wrk`), alone, beside 200 clients that
send a byte of a request every 200 ms, and beside one that sends a body of 32 MB a second.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import fitted
import results

from serving import BESIDE, CONNECTIONS, OURS, Server, load, ours, python_of, require_wrk, serving

MOST_CLIENTS = 4_000
SLOW_CLIENTS = 200
SLOW_SECONDS = 0.2
HUGE_BYTES = 32_000_000
REPEATS = 3
Client = Callable[[SplitResult], Coroutine[Any, Any, None]]


def offered(url: str, body: Any, rate: float, seconds: int) -> list[str]:
    """What became of so many requests a second: answers and refusals a second, and their 99 %, in ms."""
    asking = [sys.executable, str(Path(__file__).with_name("open_loop.py")), url, json.dumps(body)]
    command = [*BESIDE, *asking, str(rate), str(seconds), str(MOST_CLIENTS)]
    taken = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if others := taken.keys() - {"200", "503"}:
        sys.exit(f"Requests to {url} were answered {', '.join(others)}.")
    return [
        f"{len(some) / seconds:,.0f} | {_percentile(some)}" for some in (taken.get("200", []), taken.get("503", []))
    ]


def _percentile(taken: list[float]) -> str:
    return f"{statistics.quantiles(taken, n=100, method='inclusive')[-1]:,.0f}" if len(taken) > 1 else ""


async def slow_client(url: SplitResult) -> None:
    """Sends a request byte by byte, for as long as it is let."""
    while True:
        _, writer = await asyncio.open_connection(url.hostname, url.port)
        for byte in b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n" + b" " * 999:
            writer.write(bytes([byte]))
            await asyncio.sleep(SLOW_SECONDS)
        writer.close()


async def huge_client(url: SplitResult, row: Sequence[float]) -> None:
    """Sends a large body in pieces, and then the next."""
    rows = b",".join([json.dumps(row).encode()] * 1000)
    body = b'{"data":[' + b",".join([rows] * (HUGE_BYTES // len(rows))) + b"]}"
    piece = len(body) // 100 + 1
    while True:
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body))
        for begin in range(0, len(body), piece):
            writer.write(body[begin : begin + piece])
            await writer.drain()
            await asyncio.sleep(0.01)
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"A body of {len(body)} bytes was answered {status.decode()}")
        writer.close()


@contextmanager
def beside(client: Client, number: int, url: str) -> Iterator[None]:
    """So many of these clients, in a thread on the core of the load."""
    ended = threading.Event()

    async def together() -> None:
        if BESIDE:
            os.sched_setaffinity(0, {1})
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client(urlsplit(url))) for _ in range(number)]
            await asyncio.to_thread(ended.wait)
            for task in tasks:
                task.cancel()

    with ThreadPoolExecutor(1) as thread:
        clients = thread.submit(asyncio.run, together())
        try:
            yield
        finally:
            ended.set()
        clients.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--publish", action="store_true", help="write the results to docs/performance.md")
    arguments = parser.parse_args()
    require_wrk()
    where = results.machine()
    with tempfile.TemporaryDirectory(prefix="asgard-bench-") as temporary:
        found = "\n".join([where, "", *measure(Path(temporary), arguments.seconds)])
    print(found)
    if arguments.publish:
        results.publish("bench/overload.py", f"{found}\n")


def measure(folder: Path, seconds: int) -> list[str]:
    """Lines of Markdown."""
    python, model = python_of("ours", OURS, "forest"), folder / "model"
    rows, expected = fitted.fit(python, "forest", model)
    compiled = ours(folder / "compiled", model, python)
    plain = ours(folder / "plain", model, python, compiled=False)
    about = folder / "plain" / "compiled" / "about.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "batches": False}))
    body = compiled.body(rows[:1])
    with serving(plain, python, model, folder / "run-plain", rows, expected) as server:
        results.progress("overload")
        rate, slow = load(server.url, body, CONNECTIONS[-1], seconds, server.folder)
        overload = offered(server.url, body, 2 * rate, 2 * seconds)
        beside_plain = in_company(server, body, rows[0], seconds)
    with serving(compiled, python, model, folder / "run-compiled", rows, expected) as server:
        beside_compiled = in_company(server, body, rows[0], seconds)
    return [
        "| asked by | answered/s | p99, ms | 503/s | p99, ms |",
        "|---|---|---|---|---|",
        f"| {CONNECTIONS[-1]} clients, as fast as they are answered | {rate:,.0f} | {slow:,.0f} | | |",
        f"| {2 * rate:,.0f} times a second, whether they are answered or not | {' | '.join(overload)} |",
        "",
        f"| beside {CONNECTIONS[-1]} connections | compiled: req/s | p99, ms | as it is: req/s | p99, ms |",
        "|---|---|---|---|---|",
        *(f"| {name} | {found} | {beside_plain[name]} |" for name, found in beside_compiled.items()),
    ]


def in_company(server: Server, body: Any, row: Sequence[float], seconds: int) -> dict[str, str]:
    """Requests a second of the load and their 99 %, in ms, medians, by what other clients there are."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(REPEATS):
        for name, client, number in (
            ("nobody", slow_client, 0),
            (f"{SLOW_CLIENTS} slow clients", slow_client, SLOW_CLIENTS),
            (f"a client of {HUGE_BYTES // 1_000_000} MB a second", partial(huge_client, row=row), 1),
        ):
            results.progress(f"beside {name}")
            with beside(client, number, server.url):
                loaded = load(server.url, body, CONNECTIONS[-1], seconds, server.folder)
            found.setdefault(name, []).append(loaded)
    return {
        name: f"{statistics.median(rate for rate, _ in some):,.0f} | {statistics.median(slow for _, slow in some):.2f}"
        for name, some in found.items()
    }


if __name__ == "__main__":
    main()
