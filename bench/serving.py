"""Our model server beside its peers: the same fitted models, the same rows, one worker each, in one run.

    uv run python bench/serving.py [--models forest] [--rows 1,32,1000] [--repeats 3] [--seconds 1]
        [--before REVISION] [--short|--publish]

Each peer is installed into an environment of its own in the cache folder, byte-compiled as ours is. The load comes from
wrk, on another core than the server's. Every server's answers are compared with the model's before it is measured, and
a refused or failed request ends the run. `--short`: one peer, one model, and a few requests that this program sends
itself, without wrk; for checking it.
"""

import argparse
import io
import itertools
import json
import os
import re
import runpy
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import fitted
import httpx
import psutil
import results
from peers import PEERS, Peer, Rows, Started, environment
from platformdirs import user_cache_path
from uv import find_uv_bin

from asgard.platform import bundle, ports, pythons
from asgard.serving import COMPILED_REQUIREMENTS, SERVER_REQUIREMENTS

CACHE = user_cache_path("asgard") / "bench"
OURS = ("mlflow-skinny", *SERVER_REQUIREMENTS, *COMPILED_REQUIREMENTS)
START_SECONDS = 180.0
CONNECTIONS = (1, 32)
BESIDE = ["taskset", "-c", "1"] if shutil.which("taskset") and (os.cpu_count() or 1) > 1 else []
"""Before a command that loads a server: on another core than the server's, where that can be said."""

ECHO = """
import socket
from asgard_server.application import Application
from asgard_server.asking import Asking, Operation
from asgard_server.http_server import Server
from asgard_server.messages import Answer
from asgard_server.metrics import Metrics, SharedNumbers
asking = Asking(lambda request: Answer(request.body), None)
listener = socket.create_server(("127.0.0.1", {port}))
operations = {{"/predict": Operation("POST", model=asking, quick=asking)}}
application = Application(operations, Metrics(SharedNumbers(1), 0, operations, {{}}))
Server([application], lambda event: None).run([listener])
"""


BARE_ECHO = """
import asyncio, httptools, uvloop
class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.parser = transport, httptools.HttpRequestParser(self)
    def data_received(self, data):
        self.parser.feed_data(data)
    def on_body(self, body):
        self.transport.write(b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\n"
                             b"content-length: %d\\r\\n\\r\\n%b" % (len(body), body))
async def main():
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", {port})
    await server.serve_forever()
uvloop.run(main())
"""
"""What Python can do on the same parser, with nothing of a server; only for bodies that come in one piece."""


def python_of(peer: str, own: tuple[str, ...], model: str) -> Path:
    """The interpreter of a peer's environment for a model, installed where it is not there yet."""
    version, requirements = fitted.needs(model, own)
    folder = CACHE / re.sub(r"\W+", "-", f"{peer}-pytorch" if model == "pytorch" else peer).lower()
    python, done = folder / "bin" / "python", folder / "complete"
    wanted = json.dumps(requirements)
    if not done.exists() or done.read_text() != wanted:
        interpreter = pythons.installed().get(version, version)
        subprocess.run([find_uv_bin(), "venv", "--quiet", "--clear", "--python", interpreter, folder], check=True)
        install = [find_uv_bin(), "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
        subprocess.run([*map(str, install), *requirements], check=True)
        done.write_text(wanted)
    return python


def ours(place: Path, model: Path, python: Path, *, compiled: bool = True, revision: str | None = None) -> Peer:
    """Our server with a bundle of the model, compiled as a deploy does it or not at all; made in `place`.

    `revision`: of git, at which the server is taken; None: as it is.
    """
    server = place / "server"
    if revision is None:
        bundle.copy_server(server)
    else:
        copy_former_server(server, revision)
    shutil.copytree(model / "mlflow", place / "model")
    about = {"model_name": "bench", "model_version": "1", "run_id": "0", "deployment_id": "bench-v1-0"}
    (place / "bundle.json").write_text(json.dumps(about))
    variables = {**environment(python.parent), "PYTHONPATH": os.pathsep.join([str(server), str(model)])}
    compiling = "import pathlib, sys; from asgard_server import compiling; compiling.write(pathlib.Path(sys.argv[1]))"
    subprocess.run([python, "-c", compiling, place], env=variables, check=True, capture_output=True)
    found = place / "compiled" / "about.json"
    if not compiled:
        kept = json.loads(found.read_text())
        shutil.rmtree(found.parent)
        found.parent.mkdir()
        found.write_text(json.dumps({"reason": "Compiling is off.", "batches": kept.get("batches", False)}))

    def start(python: Path, _: Path, port: int) -> Started:
        options = ["--host", "127.0.0.1", "--port", str(port), str(place)]
        return Started([str(python), "-m", "asgard_server.container", *options], search=server)

    return Peer(OURS, "/predict", lambda rows: {"data": rows}, start)


def copy_former_server(folder: Path, revision: str) -> None:
    """As `bundle.copy_server`, with the package of a revision of git."""
    command = ["git", "-C", str(Path(__file__).parents[1]), "archive", revision, "src/serving"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files, tempfile.TemporaryDirectory() as temporary:
        files.extractall(temporary, filter="data")
        shutil.copytree(Path(temporary) / "src" / "serving", folder / "asgard_server")


def former_requirements(revision: str) -> tuple[str, ...]:
    """What the server needed at a revision of git, beside a model."""
    with tempfile.TemporaryDirectory() as temporary:
        copy_former_server(Path(temporary), revision)
        found = runpy.run_path(str(Path(temporary) / "asgard_server" / "__init__.py"))
    return ("mlflow-skinny", *found["SERVER_REQUIREMENTS"], *found["COMPILED_REQUIREMENTS"])


def echo(source: str, server: Path) -> Peer:
    """A server that gives back the body. `server`: the folder of our package."""

    def start(python: Path, _: Path, port: int) -> Started:
        return Started([str(python), "echo.py"], {"echo.py": source.format(port=port)}, server)

    return Peer(OURS, "/predict", lambda rows: {"data": rows}, start, lambda answer: answer["data"])


@contextmanager
def running(started: Started, model: Path, folder: Path) -> Iterator[psutil.Process]:
    """The server's process, on core 0 where that can be said, gone afterwards with all it started."""
    search = [str(part) for part in (started.search, model) if part is not None]
    folder.mkdir(parents=True)
    for name, content in started.files.items():
        (folder / name).write_text(content)
    pinned = ["taskset", "-c", "0"] if shutil.which("taskset") else []
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(
            [*pinned, *started.command], cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env={**environment(Path(started.command[0]).parent), "PYTHONPATH": os.pathsep.join(search)},
        )  # fmt: skip
    try:
        yield psutil.Process(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def first_answer(url: str, body: Any, process: psutil.Process, log: Path) -> Any:
    """The content of the first answer that is 200."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.is_running():
        try:
            answer = httpx.post(url, json=body, timeout=60)
            if answer.status_code == 200:
                return answer.json()
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    sys.exit(f"{url} does not answer:\n{log.read_text(errors='replace')[-3000:]}")


def memory(process: psutil.Process) -> float:
    """MB of the process and all below it; what they share counts once."""
    total = 0
    for part in (process, *process.children(recursive=True)):
        full = part.memory_full_info()
        total += getattr(full, "pss", full.rss)
    return total / 1e6


def require_wrk() -> None:
    """End the run where it would only fail after the servers have started."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is not on the PATH. Debian and Homebrew have it as `wrk`.")


def load(url: str, body: Any, connections: int, seconds: int, folder: Path) -> tuple[float, float]:
    """Requests a second, and the 99th percentile of their times in ms, by wrk. Ends the run where one failed."""
    script = folder / "request.lua"
    content = json.dumps(body).replace("\\", "\\\\").replace("'", "\\'")
    script.write_text(f"wrk.method='POST'\nwrk.body='{content}'\nwrk.headers['content-type']='application/json'\n")
    command = [*BESIDE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=30s", "--latency", "-s"]
    output = subprocess.run([*command, str(script), url], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(f"Requests to {url} failed:\n{output}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    slow = re.search(r"99%\s+([\d.]+)(us|ms|s)", output)
    assert rate is not None
    assert slow is not None
    return float(rate[1]), float(slow[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[slow[2]]


def few(url: str, body: Any, connections: int, _: int, __: Path) -> tuple[float, float]:
    """As `load`, with ten requests a connection."""
    limits = httpx.Limits(max_connections=connections)

    def ask(client: httpx.Client) -> float:
        began = time.monotonic()
        client.post(url, json=body).raise_for_status()
        return time.monotonic() - began

    with httpx.Client(limits=limits, timeout=60) as client, ThreadPoolExecutor(connections) as threads:
        began = time.monotonic()
        taken = sorted(threads.map(ask, [client] * 10 * connections))
        return len(taken) / (time.monotonic() - began), 1000 * taken[-1 - len(taken) // 100]


def ask_all(peer: Peer, url: str, rows: Rows) -> list[Any]:
    """What is predicted for all rows in one request."""
    return peer.predictions(httpx.post(url, json=peer.body(rows), timeout=60).json())


Figures = dict[tuple[int, int], list[tuple[float, float]]]
"""Requests a second, and the 99th percentile in ms, of each repeat; by rows a request and connections."""


@dataclass(frozen=True)
class Server:
    """One that has answered as the model does. `started`: seconds to its first answer."""

    peer: Peer
    url: str
    process: psutil.Process
    folder: Path
    started: float
    figures: Figures = field(default_factory=lambda: defaultdict(list))


@contextmanager
def serving(peer: Peer, python: Path, model: Path, folder: Path, rows: Rows, expected: list[Any]) -> Iterator[Server]:
    """The peer's server, while it runs."""
    port = ports.allocate(())
    url = f"http://127.0.0.1:{port}{peer.path}"
    began = time.monotonic()
    with running(peer.start(python, model, port), model, folder) as process:
        found = peer.predictions(first_answer(url, peer.body(rows[:1]), process, folder / "output.log"))
        started = time.monotonic() - began
        if expected and [found, ask_all(peer, url, rows)] != [expected[:1], expected]:
            sys.exit(f"{url} does not predict what the model predicts.")
        yield Server(peer, url, process, folder, started)


def measure(servers: Collection[Server], rows: Rows, arguments: argparse.Namespace) -> None:
    """Load one server after the other, and all again: what slows the machine for a while slows no one server alone."""
    for repeat in range(arguments.repeats):
        results.progress(f"load, {repeat + 1} of {arguments.repeats}")
        for server in servers:
            for count, connections in itertools.product(arguments.rows, CONNECTIONS):
                load = partial(arguments.load, server.url, server.peer.body(rows[:count]), connections)
                if repeat == 0:
                    load(1, server.folder)
                server.figures[count, connections].append(load(arguments.seconds, server.folder))


def report(name: str, measured: dict[str, tuple[float, float, Figures]], rows: list[int]) -> str:
    """Markdown, a table a number of rows: median and spread."""
    lines = []
    for count in rows:
        head = f"{name}, {count} row{'s' if count > 1 else ''} a request"
        lines += ["", f"| {head} | req/s at 1 | p99, ms | req/s at 32 | p99, ms | start, s | MB |"]
        lines.append("|---|---|---|---|---|---|---|")
        for server, (started, used, figures) in measured.items():
            cells = []
            for connections in CONNECTIONS:
                rates, slow = zip(*figures[count, connections], strict=True)
                median = statistics.median(rates)
                spread = (max(rates) - min(rates)) / median / 2 if median else 0.0
                cells += [f"{median:,.0f} ± {spread:.0%}", f"{statistics.median(slow):.2f}"]
            lines.append(f"| {server} | {' | '.join(cells)} | {started:.1f} | {used:.0f} |")
    return "\n".join(lines)


def rates(measured: dict[str, tuple[float, float, Figures]], rows: int) -> dict[str, float]:
    """Requests a second at the most connections, by server."""
    return {
        server: statistics.median(rate for rate, _ in figures[rows, CONNECTIONS[-1]])
        for server, (_, _, figures) in measured.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), default=["forest", "logistic", "xgboost"])
    parser.add_argument("--rows", type=lambda text: [int(part) for part in text.split(",")], default=[1])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--publish", action="store_true", help="write the results to docs/performance.md")
    parser.add_argument("--before", metavar="REVISION", help="beside our server as it was at a revision of git")
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    peers, arguments.load = PEERS, load
    if arguments.short:
        arguments.models, arguments.repeats, arguments.load = ["forest"], 1, few
        peers = {"bare ASGI": PEERS["bare ASGI"]}
    else:
        require_wrk()
    kind = " --before" if arguments.before else " --rows" if len(arguments.rows) > 1 else ""
    found = [results.machine()]
    print(found[0], flush=True)
    for name in arguments.models:
        results.progress(f"{name}: environments")
        own = python_of("ours", OURS, name)
        interpreters = {title: python_of(title, peer.requirements, name) for title, peer in peers.items()}
        with tempfile.TemporaryDirectory(prefix="asgard-bench-") as temporary:
            folder = Path(temporary)
            model = folder / "model"
            rows, expected = fitted.fit(own, name, model)
            bundled = folder / "compiled"
            servers = {
                "Asgard": (ours(bundled, model, own), own, expected),
                "Asgard, not compiled": (ours(folder / "uncompiled", model, own, compiled=False), own, expected),
                "Asgard, echo": (echo(ECHO, bundled / "server"), own, []),
                "bare httptools, echo": (echo(BARE_ECHO, bundled / "server"), own, []),
                **{title: (peer, interpreters[title], expected) for title, peer in peers.items()},
            }
            if arguments.before:
                before = python_of(f"ours at {arguments.before}", former_requirements(arguments.before), name)
                former = ours(folder / "before", model, before, revision=arguments.before)
                servers[f"Asgard at {arguments.before}"] = (former, before, expected)
            results.progress(f"{name}: {len(servers)} servers start")
            with ExitStack() as stack:
                started = {
                    title: stack.enter_context(serving(peer, python, model, folder / f"run-{number}", rows, wanted))
                    for number, (title, (peer, python, wanted)) in enumerate(servers.items())
                }
                measure(started.values(), rows, arguments)
                measured = {
                    title: (server.started, memory(server.process), server.figures) for title, server in started.items()
                }
            found.append(report(name, measured, arguments.rows))
            print(found[-1], flush=True)
            if arguments.publish and not kind:
                title = f"{name}, {arguments.rows[0]} row a request, {CONNECTIONS[-1]} connections"
                found.append(
                    f"\n{results.bars(f'serving-{name}', title, 'requests/s', rates(measured, arguments.rows[0]))}"
                )
    if arguments.publish:
        results.publish(f"bench/serving.py{kind}", "\n".join(found) + "\n")


if __name__ == "__main__":
    main()
