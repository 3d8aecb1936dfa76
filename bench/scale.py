"""What numbers cost: of registered models, of deploys at once, of models that are served.

    uv run python bench/scale.py [--sizes 10 100 1000] [--served 50] [--repeats N] [--publish]

Each registered model has three versions, made through MLflow's API in an embedded server in a temporary folder. A
deploy is that of bench/deploy.py, warm. Idle: CPU and memory of all that serves; what processes share counts once.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import psutil
import results
from mlflow import MlflowClient

from deploy import api, ours

VERSIONS = 3
AT_ONCE = 8
IDLE_SECONDS = 20


def grow(client: MlflowClient, numbers: range) -> None:
    """Register the models of these numbers."""
    for number in numbers:
        name = f"model-{number:05}"
        client.create_registered_model(name, tags={"team": "bench"}, description="made by bench/scale.py")
        for version in range(VERSIONS):
            client.create_model_version(name, f"s3://bench/{number}/{version}", await_creation_for=0)


def milliseconds(client: httpx.Client, path: str, repeats: int) -> float:
    """Median time of a GET on an open connection."""
    taken = []
    for _ in range(repeats):
        began = time.monotonic()
        client.get(path).raise_for_status()
        taken.append(1000 * (time.monotonic() - began))
    return statistics.median(taken)


def deploy_seconds(url: str, repeats: int) -> float:
    """Median time of a warm deploy, up to its first prediction."""
    return statistics.median(ours(url)[0] for _ in range(repeats))


def seconds_at_once(url: str, names: Iterable[str], workers: int) -> float:
    """Of all these models, deployed by so many clients at a time."""
    began = time.monotonic()
    with ThreadPoolExecutor(workers) as clients:
        list(clients.map(partial(ours, url), names))
    return time.monotonic() - began


def idle(folder: Path) -> tuple[float, float]:
    """Percent of a core, and MB, of everything that serves a model below the folder."""
    parents = [p for p in psutil.process_iter(["cmdline"]) if _serves(p.info["cmdline"] or [], folder)]
    parts = [part for parent in parents for part in (parent, *parent.children(recursive=True))]
    before = sum(_cpu(part) for part in parts)
    time.sleep(IDLE_SECONDS)
    used = sum(_cpu(part) for part in parts) - before
    return 100 * used / IDLE_SECONDS, sum(_memory(part) for part in parts) / 1e6


def _serves(command: list[str], folder: Path) -> bool:
    return "asgard.serving.parent" in command and any(part.startswith(str(folder)) for part in command)


def _cpu(part: psutil.Process) -> float:
    times = part.cpu_times()
    return float(times.user + times.system)


def _memory(part: psutil.Process) -> float:
    found = part.memory_full_info()
    return float(getattr(found, "pss", found.rss))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000], help="numbers of models, rising")
    parser.add_argument("--served", type=int, default=50, help="models that are served in the end (default: 50)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="of a deploy; a GET is done thrice as often (default: 5)"
    )
    parser.add_argument("--publish", action="store_true", help="write the results to docs/performance.md")
    options = parser.parse_args()
    where = results.machine()
    with tempfile.TemporaryDirectory(prefix="asgard-bench-") as temporary:
        found = measure(Path(temporary), options)
    print(where, found, sep="\n\n")
    if options.publish:
        results.publish("bench/scale.py", f"{where}\n\n{found}\n")


def measure(folder: Path, options: argparse.Namespace) -> str:
    """Markdown with all tables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ASGARD_", "MLFLOW_"))}
    environment |= {"ASGARD_DATA_DIR": str(folder / "data")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with api(environment, folder) as (url, _, _), httpx.Client(timeout=60) as http:
        client = MlflowClient(http.get(f"{url}/mlops/status").json()["mlflow_uri"])
        ours(url)  # makes the environment
        rows = []
        for former, size in zip([0, *options.sizes], [0, *options.sizes], strict=False):
            results.progress(f"{size:,} registered models")
            grow(client, range(former, size))
            whole = milliseconds(http, f"{url}/mlops/models", 3 * options.repeats)
            one = milliseconds(http, f"{url}/mlops/models/bench", 3 * options.repeats)
            rows.append((size + 1, whole, one, deploy_seconds(url, options.repeats)))
        results.progress("deploys at once")
        alone = statistics.median(seconds_at_once(url, [f"alone-{number}"], 1) for number in range(options.repeats))
        together = seconds_at_once(url, [f"at-once-{number}" for number in range(AT_ONCE)], AT_ONCE)
        names = [f"served-{number}" for number in range(options.served - AT_ONCE - options.repeats - 1)]
        more = seconds_at_once(url, names, AT_ONCE)
        results.progress(f"{options.served} models are idle")
        cpu, megabytes = idle(folder)
    table = [
        f"| {size:,} | {whole:.0f} | {one:.0f} | {seconds:.2f} | {seconds / rows[0][3]:.2f} |"
        for size, whole, one, seconds in rows
    ]
    return "\n".join(
        [
            f"| registered models, {VERSIONS} versions each | list, ms | one model, ms | deploy, s | of the first |",
            "|---|---|---|---|---|",
            *table,
            "",
            *([_plot(rows)] if options.publish else []),
            "| | |",
            "|---|---|",
            f"| one new model deployed, s | {alone:.1f} |",
            f"| {AT_ONCE} new models deployed at once, s | {together:.1f}, {together / alone:.1f} times one |",
            f"| {len(names)} more, {AT_ONCE} at a time, s | {more:.1f} |",
            f"| {options.served} models served and idle: CPU of all together | {cpu:.1f} % of a core |",
            f"| the same: memory a model, MB | {megabytes / options.served:.0f} |",
        ]
    )


def _plot(rows: list[tuple[int, float, float, float]]) -> str:
    return results.lines(
        "scale",
        "Cost against the number of registered models",
        "registered models",
        "milliseconds",
        {
            "GET /mlops/models": [(size, whole) for size, whole, _, _ in rows],
            "GET /mlops/models/{name}": [(size, one) for size, _, one, _ in rows],
            "POST /mlops/deploy, warm": [(size, 1000 * seconds) for size, _, _, seconds in rows],
        },
    )


if __name__ == "__main__":
    main()
