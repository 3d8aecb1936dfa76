"""A real `asgard serve` on a data folder of its own, and what tests ask of it."""

import base64
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ..waiting import until

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "quickstart" / "train.py"
REQUIREMENTS = ["mlflow", "scikit-learn==1.3.0"]
DEPLOY_SECONDS = 900

_log = logging.getLogger(__name__)

HTTP = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))
"""A new connection a request, so that any worker may answer; one client, as making one costs more than asking."""


def body(script: str, model: str, **fields: Any) -> dict[str, Any]:
    """A request to deploy `script`."""
    return {
        "script_content": base64.b64encode(script.encode()).decode(),
        "script_name": "train.py",
        "experiment_name": "tests",
        "model_name": model,
        "requirements": REQUIREMENTS,
        **fields,
    }


@dataclass
class Live:
    """One API. `environment`: what its process and its commands run with."""

    data_dir: Path
    environment: Mapping[str, str]
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.data_dir.parent / f"{self.data_dir.name}.log"

    def start(self, **extra: str) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "asgard.cli", "serve", "--port", str(self.port)],
                env={**self.environment, **extra},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._answers, f"the API answers; {self.log.read_text()}", 30)

    def _answers(self) -> bool:
        try:
            return HTTP.get(f"{self.url}/health").status_code == 200
        except httpx.TransportError:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            return False

    def ready(self) -> None:
        until(lambda: self.status()["deployment_service_ready"], "ready", 120)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.get("/mlops/status")
        return status

    def get(self, path: str) -> Any:
        return HTTP.get(f"{self.url}{path}", timeout=60).raise_for_status().json()

    def post(self, request: Mapping[str, Any]) -> httpx.Response:
        response = HTTP.post(f"{self.url}/mlops/deploy", json=request, timeout=DEPLOY_SECONDS)
        if response.status_code == 500:
            _log.error("The end of the API's log:\n%s", self.log.read_text()[-10_000:])
        return response

    def deploy(self, script: str, model: str, **fields: Any) -> dict[str, Any]:
        response = self.post(body(script, model, **fields))
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def cli(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "asgard.cli", *args],
            env={**self.environment, "ASGARD_URL": self.url},
            capture_output=True,
            text=True,
            timeout=DEPLOY_SECONDS,
        )
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def pulumi(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.cli("pulumi", "--", "--non-interactive", *args, check=check)

    def stack_file(self, model: str) -> Path:
        return self.data_dir / "stacks" / f"Pulumi.{model}.yaml"

    def processes(self, text: str) -> list[int]:
        """Pids of processes, other than this one, that have `text` in their command line or environment."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                seen = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if text.encode() in seen and state != "Z" and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        return found


def predict(url: str, rows: list[list[float]]) -> list[Any]:
    answer = HTTP.post(f"{url}/predict", json={"data": rows}, timeout=60).raise_for_status().json()
    assert list(answer) == ["predictions"]
    predictions: list[Any] = answer["predictions"]
    return predictions


def files(folder: Path) -> set[str]:
    """Those below the folder, by their paths in it; some may go meanwhile."""
    return {(Path(here) / name).relative_to(folder).as_posix() for here, _, names in os.walk(folder) for name in names}


def events(text: str) -> list[tuple[str, Any]]:
    """Server-sent events as (name, data)."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found
