"""POST → first prediction, in one run with what it is compared with.

    uv run python bench/deploy.py [--repeats N] [--target local|kubernetes] [--publish]

Target `local`: against the same script by hand, alone and with `mlflow models serve` after it. Target `kubernetes`:
against the target `local`, on the cluster and registry of KUBECONFIG and ASGARD_REGISTRY, else on the tests' own.

Alone: `python train.py` in a uv project with the lock that the deploy had, uv on PATH; the fastest way by hand, and no
URL at its end. Cold: no environment for the requirements exists yet, uv's own cache does. Warm: it exists. Everything
happens in a temporary folder. Prints a table, and where our seconds go, stage by stage.
"""

import argparse
import base64
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from uv import find_uv_bin

from asgard.platform import engine_install, ports
from asgard.settings import Settings

CHECKOUT = Path(__file__).parents[1]
sys.path += [str(CHECKOUT), str(CHECKOUT / "tools")]

import demo  # noqa: E402
import results  # noqa: E402

from tests.standins import path_with_cli  # noqa: E402

ASGARD = str(Path(sys.executable).with_name("asgard"))

SCRIPT = CHECKOUT / "examples" / "quickstart" / "train.py"
REQUIREMENTS = ["mlflow", "scikit-learn==1.3.0"]
ROW = [0.1, -0.2, 0.3, 0.4, -0.5]
DEADLINE_SECONDS = 900.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("The deadline has passed.")
        time.sleep(0.02)


def answers(url: str, body: object) -> bool:
    try:
        return httpx.post(url, json=body, timeout=60).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def process(arguments: list[str], environment: Mapping[str, str], folder: Path) -> Iterator[None]:
    with (folder / "output.log").open("ab") as log:
        running = subprocess.Popen(
            arguments, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(running.pid, signal.SIGTERM)
        running.wait()


def ours(url: str, model: str = "bench") -> tuple[float, dict[str, float]]:
    """Seconds from the POST to the first prediction, and of each stage."""
    request = {
        "script_content": base64.b64encode(SCRIPT.read_bytes()).decode(),
        "script_name": SCRIPT.name,
        "experiment_name": "bench",
        "model_name": model,
        "requirements": REQUIREMENTS,
    }
    began = time.monotonic()
    marks: list[tuple[str, float]] = []
    steps: dict[str, float] = {}
    answer, event, server = {}, "", None
    with httpx.stream(
        "POST",
        f"{url}/mlops/deploy",
        json=request,
        headers={"Accept": "text/event-stream"},
        timeout=DEADLINE_SECONDS,
    ) as response:
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                event = value
            elif field == "data" and event == "stage":
                marks.append((json.loads(value)["stage"], time.monotonic()))
            elif field == "data" and event == "log":
                step = json.loads(value)["line"]
                steps[step.rpartition(":")[2]] = time.monotonic()
                if started := re.search(r"answers after (\S+) s$", step):
                    server = float(started[1])
            elif field == "data" and event in ("result", "error"):
                answer = json.loads(value)
    if "inference_url" not in answer:
        sys.exit(f"The deploy failed: {answer}")
    deployed = time.monotonic()
    until(lambda: answers(f"{answer['inference_url']}/predict", {"data": [ROW]}))
    total = time.monotonic() - began
    ends = [moment for _, moment in marks[1:]] + [deployed]
    stages = {stage: end - moment for (stage, moment), end in zip(marks, ends, strict=True)}
    if server is not None:
        stages["of that, the model server's start"] = server
    if "Image" in steps and "Deployment" in steps:  # Which waits for it.
        stages["of that, the push"] = steps["Deployment"] - steps["Image"]
    return total, stages


def equal_project(data_dir: Path, folder: Path) -> Path:
    """A uv project with the script and what the deploy locked for it."""
    (locked,) = data_dir.glob("bundles/bench/*/environment")
    shutil.copytree(locked, folder)
    shutil.copy(SCRIPT, folder)
    return folder


def by_hand(environment: Mapping[str, str], project: Path, *, install: bool) -> tuple[float, float]:
    """Seconds of a person's commands: up to the script's end, and up to the first prediction of `mlflow models serve`.

    In a uv project; `install`: with `uv sync` before it.
    """
    began = time.monotonic()
    if install:
        subprocess.run([find_uv_bin(), "sync", "--quiet", "--frozen"], env=environment, cwd=project, check=True)
    programs = project / ".venv" / "bin"
    variables = {
        **environment,
        "PATH": os.pathsep.join([str(programs), str(Path(find_uv_bin()).parent), environment["PATH"]]),
        "MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db",
    }
    subprocess.run([programs / "python", SCRIPT.name], env=variables, cwd=project, check=True, capture_output=True)
    trained = time.monotonic() - began
    models = sorted((project / "mlruns").glob("*/models/m-*/artifacts"), key=lambda path: path.stat().st_mtime)
    port = ports.allocate(())
    command = [str(programs / "mlflow"), "models", "serve", "-m", str(models[-1]), "--env-manager", "local"]
    with process([*command, "--port", str(port), "--host", "127.0.0.1"], variables, project):
        until(lambda: answers(f"http://127.0.0.1:{port}/invocations", {"inputs": [ROW]}))
        return trained, time.monotonic() - began


@contextmanager
def api(environment: Mapping[str, str], folder: Path) -> Iterator[tuple[str, float, float]]:
    """`asgard serve`: its URL, and after how many seconds it answered and was ready."""
    port = ports.allocate(())
    url = f"http://127.0.0.1:{port}"
    began = time.monotonic()
    with process([ASGARD, "serve", "--port", str(port)], environment, folder):
        until(lambda: _answers(url))
        answered = time.monotonic() - began
        until(lambda: _ready(url))
        yield url, answered, time.monotonic() - began


def destroy(environment: Mapping[str, str]) -> None:
    subprocess.run([ASGARD, "destroy", "bench", "--yes"], env=environment, check=True, capture_output=True)


def pod_seconds() -> float:
    """From the creation of the newest pod to its readiness, as the cluster has it: in whole seconds."""
    from lightkube import Client, KubeConfig
    from lightkube.resources.core_v1 import Pod

    config = KubeConfig.from_file(os.environ["KUBECONFIG"]).get(os.environ.get("ASGARD_KUBE_CONTEXT"))
    namespace = os.environ.get("ASGARD_NAMESPACE", "asgard")
    spans = []
    for pod in Client(config, namespace=namespace).list(Pod, labels={"app.kubernetes.io/name": "bench"}):
        made = pod.metadata.creationTimestamp if pod.metadata else None
        for condition in (pod.status.conditions if pod.status else None) or []:
            ready = condition.lastTransitionTime
            if condition.type == "Ready" and condition.status == "True" and made and ready:
                spans.append((made, ready - made))
    return max(spans)[1].total_seconds()


def replicas_seconds(environment: Mapping[str, str]) -> tuple[float, str]:
    """Of `pulumi up` after an edit of the stack file that changes the number of replicas, and what it says it did."""
    file = Path(environment["ASGARD_DATA_DIR"]) / "stacks" / "Pulumi.bench.yaml"
    file.write_text(file.read_text().replace("replicas: 1", "replicas: 2"))
    began = time.monotonic()
    up = ["pulumi", "--", "up", "--yes", "--skip-preview", "--non-interactive", "-s", "bench"]
    done = subprocess.run([ASGARD, *up], env=environment, check=True, capture_output=True, text=True)
    return time.monotonic() - began, done.stdout.partition("Resources:")[2].partition("Duration")[0]


def on_cluster(folder: Path, repeats: int) -> list[str]:
    """Lines of Markdown."""
    with demo.place("kubernetes", folder) as found:
        os.environ.update(found.settings)
        cli = engine_install.find_or_install(Settings(), lambda _: None)
        environment = {
            **found.environment,
            "ASGARD_CACHE_DIR": str(folder / "cache"),
            "PATH": path_with_cli(Path(cli.command), folder),
        }
        results.progress("deploys to the cluster")
        with api(environment, folder) as (url, _, _):
            cold, cold_stages = ours(url)
            warm, starts = [], []
            for _ in range(repeats):
                warm.append(ours(url))
                starts.append(pod_seconds())
        change, did = replicas_seconds(environment)
        destroy(environment)
    local = {**environment, "ASGARD_TARGET": "local", "ASGARD_DATA_DIR": str(folder / "local")}
    results.progress("deploys to this machine")
    with api(local, folder) as (url, _, _):
        ours(url)
        compared = [ours(url) for _ in range(repeats)]
    destroy(local)
    cluster_warm, local_warm = (statistics.median(total for total, _ in runs) for runs in (warm, compared))
    start = statistics.median(starts)
    return [
        "| POST → first prediction | kubernetes, s | the pod's own start, s | local, s | without the start / local |",
        "|---|---|---|---|---|",
        f"| warm, median of {repeats} | {cluster_warm:.1f} | {start:.0f} | {local_warm:.1f} | "
        f"{(cluster_warm - start) / local_warm:.2f} |",
        f"| cold | {cold:.1f} | | | |",
        "",
        f"`pulumi up` after an edit of `replicas`, 1 to 2: {change:.1f} s ({' '.join(did.split())}).",
        *_stages(cold_stages, warm),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="warm runs of each (default: 3)")
    parser.add_argument("--target", choices=["local", "kubernetes"], default="local")
    parser.add_argument("--publish", action="store_true", help="write the results to docs/performance.md")
    arguments = parser.parse_args()
    where = results.machine()
    with tempfile.TemporaryDirectory(prefix="asgard-bench-") as temporary:
        compare = here if arguments.target == "local" else on_cluster
        found = "\n".join([where, "", *compare(Path(temporary), arguments.repeats)])
    print(found)
    if arguments.publish:
        section = "bench/deploy.py" if arguments.target == "local" else "bench/deploy.py --target kubernetes"
        results.publish(section, f"{found}\n")


def here(folder: Path, repeats: int) -> list[str]:
    """Lines of Markdown."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ASGARD_", "MLFLOW_"))}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    settings = {"ASGARD_DATA_DIR": str(folder / "data"), "ASGARD_CACHE_DIR": str(folder / "cache")}
    results.progress("asgard serve")
    with api({**environment, **settings}, folder) as (url, answered, ready):
        results.progress("deploys")
        cold, cold_stages = ours(url)
        warm = [ours(url) for _ in range(repeats)]
        project = equal_project(folder / "data", folder / "project")
    destroy({**environment, **settings})
    results.progress("by hand")
    alone_cold, hand_cold = by_hand(environment, project, install=True)
    by_hand_warm = [by_hand(environment, project, install=False) for _ in range(repeats)]
    alone_warm, hand_warm = [alone for alone, _ in by_hand_warm], [served for _, served in by_hand_warm]
    warm_seconds = [total for total, _ in warm]
    return [
        "| POST → first prediction | Asgard, s | script alone, s | ratio | with `mlflow models serve`, s | ratio |",
        "|---|---|---|---|---|---|",
        _row("cold environment", [cold], [alone_cold], [hand_cold]),
        _row(f"warm, median of {repeats}", warm_seconds, alone_warm, hand_warm),
        "",
        f"`asgard serve`, new data folder: answers after {answered:.1f} s, ready to deploy after {ready:.1f} s.",
        *_stages(cold_stages, warm),
    ]


def _stages(cold: Mapping[str, float], warm: Sequence[tuple[float, Mapping[str, float]]]) -> list[str]:
    return [
        "",
        "| stage | cold, s | warm, median s |",
        "|---|---|---|",
        *(
            f"| {stage} | {seconds:.2f} | {statistics.median(stages[stage] for _, stages in warm):.2f} |"
            for stage, seconds in cold.items()
        ),
    ]


def _row(name: str, ours: list[float], *others: list[float]) -> str:
    """Medians with their spread, each other's followed by the ratio."""
    cells = [name, _spread(ours)]
    for other in others:
        cells += [_spread(other), f"{statistics.median(ours) / statistics.median(other):.2f}"]
    return f"| {' | '.join(cells)} |"


def _spread(seconds: list[float]) -> str:
    middle = f"{statistics.median(seconds):.1f}"
    return middle if len(seconds) == 1 else f"{middle} ({min(seconds):.1f} to {max(seconds):.1f})"


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").is_success
    except httpx.TransportError:
        return False


def _ready(url: str) -> bool:
    return bool(httpx.get(f"{url}/mlops/status").json()["deployment_service_ready"])


if __name__ == "__main__":
    main()
