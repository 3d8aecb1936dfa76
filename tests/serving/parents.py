"""Driving a model's parent from a test."""

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from asgard.serving import control
from asgard.serving.desired import Desired, Status
from asgard.serving.processes import alive

from ..ports import free_port


class Model:
    """One model: its folder, its port, and what a client sees."""

    def __init__(self, folder: Path, python: Path, bundle: Callable[..., Path]) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.logged: list[str] = []
        self._python = python
        self._bundle = bundle

    def desired(self, model: str = "obedient", version: int = 1, **changes: Any) -> Desired:
        wanted = Desired(
            name=self.folder.name,
            host="127.0.0.1",
            port=self.port,
            replicas=1,
            memory_limit_bytes=2 * 1024**3,
            cpu_limit_millicores=1000,
            python=str(self._python),
            bundle=str(self._bundle(model, version)),
            release={"version": version, "run_id": "abcdef0123", "digest": "sha256:0", "bundle": "mlflow-artifacts:/b"},
        )
        return replace(wanted, **changes)

    def apply(
        self,
        model: str = "obedient",
        version: int = 1,
        environment: dict[str, str] | None = None,
        timeout_seconds: float = 120,
        **changes: Any,
    ) -> None:
        control.apply(
            self.folder,
            self.desired(model, version, **changes),
            environment or {},
            timeout_seconds=timeout_seconds,
            on_log=self.logged.append,
        )

    def status(self) -> Status:
        found = control.status(self.folder)
        assert found is not None
        return found

    def stop(self) -> None:
        control.stop(self.folder)

    def predict(self, *row: float) -> httpx.Response:
        return httpx.post(f"{self.url}/predict", json={"data": [list(row)]}, timeout=60)

    def version(self) -> str:
        return str(httpx.get(f"{self.url}/metadata", timeout=60).json()["version"])

    def log(self) -> str:
        return (self.folder / "logs" / "server.log").read_text()

    def refuses(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except ConnectionRefusedError:
            return True
        return False


class Parents:
    """Makes models and ends what is left of them."""

    def __init__(self, folder: Path, python: Path, bundle: Callable[..., Path]) -> None:
        self._folder = folder
        self._python = python
        self._bundle = bundle
        self._models: list[Model] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for model in self._models:
            found = control.status(model.folder)
            model.stop()
            for pid in (found.parent_pid, *found.worker_pids) if found else ():
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)

    def model(self, name: str = "iris") -> Model:
        """A model that nothing runs for yet."""
        self._models.append(Model(self._folder / name, self._python, self._bundle))
        return self._models[-1]
