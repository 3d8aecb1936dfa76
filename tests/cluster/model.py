"""What a running cluster is to those who use it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from lightkube import Client
from lightkube.config.kubeconfig import KubeConfig

_WITHHELD: Final = "withheld"


class HarnessError(Exception):
    """The harness could not do its work; the text says what is missing or failed, `log_tail` what was said last."""

    def __init__(self, message: str, log_tail: Sequence[str] = ()) -> None:
        super().__init__("\n".join([message, *log_tail]))


@dataclass(frozen=True)
class Cluster:
    """A one-node cluster with a registry. All of it is on this machine's loopback; pods answer on their own addresses.

    `folder`: logs of every part and what the harness keeps; gone with the cluster, but for the logs.
    `kubeconfig`: for an administrator; `context` is its only one.
    `registry`: `127.0.0.1:PORT`, plain HTTP, without credentials; the node pulls from any registry on 127.0.0.1.
    `host`: this machine's address to pods; the API server they reach as the Service `kubernetes`, no other Service.
    `base_image`: reference in that registry of a Debian with Python, without pip.
    """

    folder: Path
    kubeconfig: Path
    context: str
    registry: str
    base_image: str
    host: str

    def client(self, namespace: str | None = None) -> Client:
        """An administrator's client."""
        return Client(KubeConfig.from_file(self.kubeconfig), namespace=namespace, trust_env=False)

    @contextmanager
    def without_address(self, namespace: str, service: str = "*") -> Iterator[None]:
        """While this lasts the load balancer gives those Services no address. `service`: a shell pattern."""
        pattern = f"{namespace}/{service}"
        _withhold(self.folder, [*withheld(self.folder), pattern])
        try:
            yield
        finally:
            rest = withheld(self.folder)
            rest.remove(pattern)
            _withhold(self.folder, rest)


def save(cluster: Cluster, path: Path) -> None:
    _write(path, json.dumps(asdict(cluster), default=str, indent=1))


def load(path: Path) -> Cluster:
    saved = json.loads(path.read_text())
    return Cluster(**{**saved, "folder": Path(saved["folder"]), "kubeconfig": Path(saved["kubeconfig"])})


def withheld(folder: Path) -> list[str]:
    """Patterns `namespace/service` of Services that get no address."""
    path = folder / _WITHHELD
    return path.read_text().splitlines() if path.exists() else []


def _withhold(folder: Path, patterns: Sequence[str]) -> None:
    _write(folder / _WITHHELD, "\n".join(patterns))


def _write(path: Path, text: str) -> None:
    """Whole or not at all: another process reads it."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.rename(path)
