"""Whether the Feast repository can be read, as a process of its own keeps finding out."""

import json
import os
import shutil
import threading
import time
from dataclasses import dataclass
from subprocess import PIPE, Popen
from typing import Final

import structlog

from ..settings import Settings
from . import children

START_SECONDS: Final = 60.0
"""Time until a probe's first word, `import feast` included."""
ANSWER_SECONDS: Final = 8.0
"""Time from one reading to the next, past which the probe hangs."""
_BACK_OFF_SECONDS: Final = 2.0

_log = structlog.get_logger("asgard.feast")


@dataclass(frozen=True)
class Reading:
    """The newest word on the registry. `error` None: it was read."""

    error: str | None


class FeastProbe:
    """Keeps a probe of the Feast repository alive between `start` and `stop`; replaces one that ends or hangs."""

    def __init__(self, settings: Settings, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._settings = settings
        self._answer_seconds = answer_seconds
        self._stopping = threading.Event()
        self._changing = threading.Lock()
        self._reading: Reading | None = None
        self._process: Popen[bytes] | None = None
        self._deadline = 0.0
        self._threads = [
            threading.Thread(target=self._listen, name="feast probe", daemon=True),
            threading.Thread(target=self._watch, name="feast watchdog", daemon=True),
        ]

    @property
    def reading(self) -> Reading | None:
        """What the probe found last; None: it has not spoken yet. Instant."""
        return self._reading

    def start(self) -> None:
        """Start the probe; a repository is made where there is none. Does not wait."""
        self._spawn()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the probe and wait until it is gone."""
        with self._changing:
            self._stopping.set()
        if self._process is not None:
            children.end(self._process)
            for thread in self._threads:
                thread.join()

    def _restart(self) -> bool:
        with self._changing:
            if not self._stopping.is_set():
                self._spawn()
            return not self._stopping.is_set()

    def _spawn(self) -> None:
        self._deadline = time.monotonic() + START_SECONDS
        log = self._settings.data_dir / "logs" / "feast.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        # Feast leaves a folder behind in each process that does not end by itself.
        temporary = self._settings.data_dir / "tmp" / "feast"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        # Begun anew with each probe, so that it stays small.
        with log.open("wb") as errors:
            self._process = children.start(
                "feast_probe",
                self._settings.feast_repo_path.absolute(),
                output=PIPE,
                errors=errors,
                environment={**_environment(), "TMPDIR": str(temporary.absolute())},
            )

    def _listen(self) -> None:
        while self._process is not None and self._process.stdout is not None:
            with self._process.stdout as lines:
                for line in lines:
                    self._deadline = time.monotonic() + self._answer_seconds
                    self._reading = Reading(json.loads(line)["error"])
            code = self._process.wait()
            if self._stopping.is_set():
                return
            if not _failed(self._reading):
                self._reading = Reading("the probe of Feast ended")
            _log.error("the Feast probe ended, starting it again", code=code)
            if self._stopping.wait(_BACK_OFF_SECONDS) or not self._restart():
                return

    def _watch(self) -> None:
        while not self._stopping.wait(0.2):
            if self._process is not None and time.monotonic() > self._deadline:
                self._reading = Reading(f"the registry of {self._settings.feast_repo_path} does not answer")
                children.kill(self._process)
                self._deadline = time.monotonic() + START_SECONDS


def _environment() -> dict[str, str]:
    """The API's, for the repository's own settings and credentials may stand there; without what is not Feast's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("ASGARD_", "MLFLOW_", "PULUMI_"))}


def _failed(reading: Reading | None) -> bool:
    return reading is not None and reading.error is not None
