"""What the number of registered models costs: GET /mlops/models and GET /mlops/models/{name}.

    uv run python bench/scale.py [--sizes 10 100 1000] [--repeats N]

Each model has three versions. They are made through MLflow's API, in an embedded server in a temporary folder. Prints a
table of medians, through HTTP.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
from mlflow import MlflowClient

from deploy import free_port, process, until

VERSIONS = 3


def grow(client: MlflowClient, sizes: range) -> None:
    """Register the models of these numbers."""
    for number in sizes:
        name = f"model-{number:05}"
        client.create_registered_model(name, tags={"team": "bench"}, description="made by bench/scale.py")
        for version in range(VERSIONS):
            client.create_model_version(name, f"s3://bench/{number}/{version}", await_creation_for=0)


def milliseconds(url: str, repeats: int) -> float:
    """Median time of a GET."""
    taken = []
    for _ in range(repeats):
        began = time.monotonic()
        httpx.get(url, timeout=60).raise_for_status()
        taken.append(1000 * (time.monotonic() - began))
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000], help="numbers of models, rising")
    parser.add_argument("--repeats", type=int, default=9, help="of each request (default: 9)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="asgard-bench-") as temporary:
        folder = Path(temporary)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ASGARD_", "MLFLOW_"))}
        environment |= {"ASGARD_DATA_DIR": str(folder / "data")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        url = f"http://127.0.0.1:{(port := free_port())}/mlops"
        asgard = str(Path(sys.executable).with_name("asgard"))
        with process([asgard, "serve", "--port", str(port)], environment, folder):
            until(lambda: _is_healthy(url))
            client = MlflowClient(httpx.get(f"{url}/status").json()["mlflow_uri"])
            print("| registered models, 3 versions each | list, ms | one model, ms |")
            print("|---|---|---|")
            for former, size in zip([0, *options.sizes], options.sizes, strict=False):
                grow(client, range(former, size))
                whole = milliseconds(f"{url}/models", options.repeats)
                one = milliseconds(f"{url}/models/model-{former:05}", options.repeats)
                print(f"| {size:,} | {whole:.0f} | {one:.0f} |", flush=True)


def _is_healthy(url: str) -> bool:
    try:
        return bool(httpx.get(f"{url}/status").json()["mlflow_status"] == "healthy")
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
