"""The workflow of the README, for real: an API of its own on a folder of its own, one POST, and what it answers.

    python tools/demo.py [--target local|kubernetes]

On Kubernetes: on the cluster and registry that KUBECONFIG and ASGARD_REGISTRY name, else on the tests' cluster, brought
up for the demo.
"""

import argparse
import base64
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

CHECKOUT = Path(__file__).parents[1]
DATA_DIR = CHECKOUT / ".demo"
ASGARD = str(Path(sys.executable).with_name("asgard"))
MODEL = "iris"
PLATFORM = "platform"
READY_SECONDS = 300
DEPLOY_SECONDS = 2400

OF_A_CLUSTER = [
    f"ASGARD_{name}"
    for name in (
        "REGISTRY", "BASE_IMAGE", "IMAGE_PLATFORM", "KUBE_CONTEXT", "NAMESPACE", "PULL_USERNAME", "PULL_PASSWORD",
        "ROLLOUT_TIMEOUT_SECONDS",
    )
]  # fmt: skip

REQUEST = {
    "script_content": base64.b64encode((CHECKOUT / "examples/quickstart/train.py").read_bytes()).decode(),
    "script_name": "train.py",
    "experiment_name": "iris",
    "model_name": MODEL,
    "requirements": ["mlflow", "scikit-learn==1.3.0"],
}
PREDICT = {"data": [[5.1, 3.5, 1.4, 0.2, 0.3]]}


def say(text: str) -> None:
    print(text, flush=True)


def show(call: str, answer: Any) -> None:
    say(f"\n$ {call}\n{json.dumps(answer, indent=2)}")


@dataclass(frozen=True)
class Place:
    """Where the demo works. `settings`: what the API and its commands get of ASGARD_* variables, and more."""

    data_dir: Path
    settings: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """The caller's, without settings that would make the demo work on anything else."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name == "ASGARD_CACHE_DIR" or not name.startswith(("ASGARD_", "MLFLOW_"))
        }
        return {**kept, **self.settings, "ASGARD_DATA_DIR": str(self.data_dir)}

    @property
    def shown(self) -> str:
        """What to type before a command of one's own."""
        shown = {**self.settings, "ASGARD_DATA_DIR": str(self.data_dir)}
        return " ".join(f"{name}={shlex.quote(value)}" for name, value in shown.items() if "PASSWORD" not in name)

    def asgard(self, *arguments: str) -> int:
        return subprocess.run([ASGARD, *arguments], env=self.environment, check=False).returncode


@contextmanager
def place(target: str, folder: Path) -> Iterator[Place]:
    """What to work on for as long as the block lasts; all that is kept is in `folder`."""
    if target == "local":
        yield Place(folder, {})
        return
    data_dir = folder / "kubernetes"
    if "KUBECONFIG" in os.environ and "ASGARD_REGISTRY" in os.environ:
        own = {name: value for name, value in os.environ.items() if name in OF_A_CLUSTER}
        with provider(Place(data_dir, {**own, "ASGARD_TARGET": "kubernetes"})) as found:
            yield found
        return
    with cluster(folder / "cluster") as settings:
        for path in data_dir.glob("*"):  # Of a cluster that is gone.
            if path.name != "pulumi-home":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with provider(Place(data_dir, settings)) as found:
            yield found


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """The tests' cluster and its registry; gives the settings with which Asgard uses them."""
    command = [sys.executable, "-m", "tests.cluster"]
    say("Bringing up a Kubernetes cluster on this machine (the first time, its programs are built: some ten minutes)")
    up = [*command, "up", "--for-process", str(os.getpid()), str(folder)]
    try:
        done = subprocess.run(up, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit("There is no cluster to show this on. Name your own with KUBECONFIG and ASGARD_REGISTRY.")
        exports = [word for word in shlex.split(done.stdout) if word != "export"]
        yield dict(word.split("=", 1) for word in exports)
    finally:
        say("Taking the cluster away …")
        subprocess.run([*command, "down", str(folder)], cwd=CHECKOUT, check=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def provider(found: Place) -> Iterator[Place]:
    """With Pulumi's plugin `kubernetes`, of PATH or downloaded; where it cannot be, with the tests' stand-in for it."""
    if shutil.which("pulumi-resource-kubernetes"):
        yield found
        return
    plugin = ["plugin", "install", "resource", "kubernetes", version("pulumi-kubernetes")]
    if subprocess.run([ASGARD, "pulumi", "--", *plugin], env=found.environment, capture_output=True).returncode == 0:
        yield found
        return
    say("The provider plugin cannot be downloaded: the tests' stand-in for it, tests/standins/kubernetes, is used.")
    stand_in = subprocess.Popen(
        [sys.executable, "-m", "tests.standins.kubernetes"],
        cwd=CHECKOUT,
        env=found.environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert stand_in.stdout is not None
        attached = {
            "PULUMI_DEBUG_PROVIDERS": f"kubernetes:{int(stand_in.stdout.readline())}",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }
        yield Place(found.data_dir, {**found.settings, **attached})
    finally:
        stand_in.terminate()
        stand_in.wait()


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in ("localhost", "127.0.0.1"):
        sys.exit(f"The demo starts an API on this machine: ASGARD_URL must be http://localhost:<port>, not {url}.")
    return parts.hostname, parts.port or 80


def must_be_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            sys.exit(
                f"Port {port} is not free ({error.strerror}): stop what listens there, or choose another port with "
                f"ASGARD_URL=http://localhost:{port + 1} make demo"
            )


@contextmanager
def running_api(url: str, found: Place) -> Iterator[None]:
    """`asgard serve`, ready to deploy; ended, with the demo's model, when the block is left."""
    _, port = address(url)
    found.data_dir.mkdir(parents=True, exist_ok=True)
    log = found.data_dir / "api.log"
    say(f"$ {found.shown} \\\n    asgard serve --port {port}     (its log: {log})")
    with log.open("ab") as output:
        api = subprocess.Popen(
            [ASGARD, "serve", "--host", "127.0.0.1", "--port", str(port)],
            env=found.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the demo, which then ends the API in order.
        )
    try:
        wait_until_ready(url, api, log)
        yield
    finally:
        say("\nStopping the API and taking the model down …")
        api.send_signal(signal.SIGTERM)  # It finishes a deploy that is under way.
        api.wait()
        take_down(found)


def take_down(found: Place) -> None:
    """The demo's stacks: the model's, and what models share."""
    failed = 0
    if (found.data_dir / "stacks" / f"Pulumi.{MODEL}.yaml").exists():
        failed = found.asgard("destroy", MODEL, "--yes")
    if not failed and (found.data_dir / "stacks" / f"Pulumi.{PLATFORM}.yaml").exists():
        failed = found.asgard("pulumi", "--", "destroy", "--yes", "--skip-preview", "--remove", "-s", PLATFORM)
    if failed:
        sys.exit(f"Not all is taken down. What is left is in the stacks of {found.data_dir}.")


def wait_until_ready(url: str, api: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while api.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/mlops/status").json()["deployment_service_ready"]:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    sys.exit(f"The API is not ready. The end of its log:\n{chr(10).join(log.read_text().splitlines()[-20:])}")


def deploy(url: str) -> dict[str, Any]:
    """The answer of the one POST. Asked for as events, it tells its stages on the way there."""
    started = time.monotonic()
    name = ""
    request = httpx.stream(
        "POST", f"{url}/mlops/deploy", json=REQUEST, headers={"Accept": "text/event-stream"}, timeout=DEPLOY_SECONDS
    )
    with request as response:
        if response.status_code != httpx.codes.OK:
            sys.exit(f"{response.status_code}: {response.read().decode()}")
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data" and name == "stage":
                event = json.loads(value)
                say(f"  {time.monotonic() - started:6.1f} s  {event['stage']}: {event['message']}")
            elif field == "data" and name == "log":
                say(f"           {json.loads(value)['line']}")
            elif field == "data" and name == "result":
                answer: dict[str, Any] = json.loads(value)
                return answer
            elif field == "data" and name == "error":
                sys.exit(f"The deploy failed:\n{json.dumps(json.loads(value), indent=2)}")
    sys.exit("The API ended the answer before the deploy was done.")


def get(url: str, path: str) -> None:
    show(f"curl {url}{path}", httpx.get(f"{url}{path}").raise_for_status().json())


END = (signal.SIGTERM, signal.SIGHUP)


def end(*_: object) -> None:
    """Leave nothing running; a second signal, which some launchers send, does not break into that."""
    for number in END:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(1)


def main() -> None:
    """Run the workflow; leave it running for as long as somebody watches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=["local", "kubernetes"], default="local")
    target = parser.parse_args().target
    for number in END:
        signal.signal(number, end)
    url = os.environ.get("ASGARD_URL", "http://localhost:8000").rstrip("/")
    must_be_free(address(url)[1])
    with suppress(KeyboardInterrupt), place(target, DATA_DIR) as found, running_api(url, found):
        workflow(url, found)


def workflow(url: str, found: Place) -> None:
    """One POST and one prediction; then wait for who watches to end it."""
    shown = {**REQUEST, "script_content": "$(base64 -w0 examples/quickstart/train.py)"}
    say(f"\n$ curl {url}/mlops/deploy -H 'Content-Type: application/json' -d @- <<JSON")
    say(f"{json.dumps(shown, indent=2)}\nJSON")
    answer = deploy(url)
    say(json.dumps(answer, indent=2))
    get(url, "/mlops/models")
    get(url, f"/mlops/models/{MODEL}")
    get(url, "/mlops/status")
    predict = f"{answer['inference_url']}/predict"
    predictions = httpx.post(predict, json=PREDICT).raise_for_status().json()
    show(f"curl {predict} -H 'Content-Type: application/json' -d '{json.dumps(PREDICT)}'", predictions)
    if sys.stdin.isatty():
        say(
            f"\nThe API runs at {url} (see {url}/docs) and the model serves until Ctrl-C. Meanwhile:\n"
            f"  {found.shown} uv run asgard pulumi -- stack output -s {MODEL}"
        )
    say(f"\nThe model serves at {answer['inference_url']}")
    if sys.stdin.isatty():
        signal.pause()


if __name__ == "__main__":
    main()
