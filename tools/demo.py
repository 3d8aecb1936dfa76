"""The workflow of the README, for real: an API of its own on a folder of its own, one POST, and what it answers."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

CHECKOUT = Path(__file__).parents[1]
DATA_DIR = CHECKOUT / ".demo"
MODEL = "iris"
READY_SECONDS = 300
DEPLOY_SECONDS = 2400

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


def own_environment() -> dict[str, str]:
    """The caller's, without settings that would make the demo work on anything but its own folder."""
    kept = {"ASGARD_CACHE_DIR"}
    environment = {
        name: value for name, value in os.environ.items() if name in kept or not name.startswith(("ASGARD_", "MLFLOW_"))
    }
    return environment | {"ASGARD_DATA_DIR": str(DATA_DIR)}


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
def running_api(url: str) -> Iterator[None]:
    """`asgard serve`, ready to deploy; ended, with the demo's model, when the block is left."""
    _, port = address(url)
    must_be_free(port)
    DATA_DIR.mkdir(exist_ok=True)
    asgard = str(Path(sys.executable).with_name("asgard"))
    log = DATA_DIR / "api.log"
    say(f"$ ASGARD_DATA_DIR={DATA_DIR} asgard serve --port {port}     (its log: {log})")
    with log.open("ab") as output:
        api = subprocess.Popen(
            [asgard, "serve", "--host", "127.0.0.1", "--port", str(port)],
            env=own_environment(),
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
        if (DATA_DIR / "stacks" / f"Pulumi.{MODEL}.yaml").exists():
            subprocess.run([asgard, "destroy", MODEL, "--yes"], env=own_environment(), check=True)


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


def main() -> None:
    """Run the workflow; leave it running for as long as somebody watches."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # So that nothing is left running.
    url = os.environ.get("ASGARD_URL", "http://localhost:8000").rstrip("/")
    with running_api(url), suppress(KeyboardInterrupt):
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
                f"  ASGARD_DATA_DIR='{DATA_DIR}' uv run asgard pulumi -- stack output -s {MODEL}"
            )
        say(f"\nThe model serves at {answer['inference_url']}")
        if sys.stdin.isatty():
            signal.pause()


if __name__ == "__main__":
    main()
