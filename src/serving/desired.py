"""What a model's parent is asked to run, and what it says of itself: the plain data that its two sides share."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

SCHEMA = 1
"""Number of the format of desired.json."""

FILE = "desired.json"
SOCKET = "control.sock"
LOG = "logs/server.log"

Reason = Literal["PortTaken", "OOMKilled", "Crashed", "Unhealthy", "Timeout", "Cancelled"]
"""Why an apply failed. Crashed: a process ended or the model does not load; Unhealthy: it fails its health check."""


class ApplyFailed(Exception):
    """What was asked for does not run; what ran before still does. `log_tail`: the last lines of what failed."""

    def __init__(self, reason: Reason, message: str, log_tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message
        self.log_tail = list(log_tail)


@dataclass(frozen=True)
class Desired:
    """One model's server. `python`: the interpreter of its environment; `bundle`: the folder that it serves."""

    name: str
    host: str
    port: int
    replicas: int
    memory_limit_bytes: int
    """Of each worker's process tree."""
    cpu_limit_millicores: int
    """Thousandths of a core for each worker; rounded up, the threads that numerical libraries start."""
    python: str
    bundle: str
    release: Mapping[str, Any]
    """`version`, `run_id`, `digest`, `bundle`: kept for whoever reads what serves."""

    def differs_in_replicas_only(self, other: "Desired") -> bool:
        """Whether both ask for workers of the same kind."""
        return replace(self, replicas=other.replicas) == other


@dataclass(frozen=True)
class Status:
    """What a parent runs. `desired`: applied last with success, None before the first; `ready`: all of it serves."""

    desired: Desired | None
    worker_pids: tuple[int, ...]
    parent_pid: int
    ready: bool


def to_json(desired: Desired) -> dict[str, Any]:
    """The content of desired.json."""
    return {"schema": SCHEMA, **asdict(desired)}


def from_json(content: Mapping[str, Any]) -> Desired:
    """Raises ValueError where the format is not one that this version knows."""
    fields = dict(content)
    if fields.pop("schema", None) != SCHEMA:
        raise ValueError(f"schema {content.get('schema')!r} is not {SCHEMA}")
    try:
        return Desired(**fields)
    except TypeError as error:
        raise ValueError(str(error)) from error


def read(model_dir: Path) -> Desired | None:
    """What serves, or should after a reboot; None where there is no desired.json. Raises ValueError."""
    try:
        text = (model_dir / FILE).read_text()
    except FileNotFoundError:
        return None
    return from_json(json.loads(text))


def write(model_dir: Path, desired: Desired) -> None:
    """Replace desired.json: a reader sees the old content or the new, also after a power cut."""
    temporary = model_dir / f".{FILE}.{os.getpid()}"
    try:
        with temporary.open("w") as file:
            json.dump(to_json(desired), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(model_dir / FILE)
    finally:
        temporary.unlink(missing_ok=True)
