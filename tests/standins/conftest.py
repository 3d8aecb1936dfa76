"""Stacks on the stand-in for the kubernetes provider, each test in a namespace of its own."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lightkube import Client
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace
from pulumi.automation import PulumiCommand

from ..cluster import Cluster
from .kubernetes import serve
from .kubernetes_stacks import Stack

_numbers = itertools.count(1)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """Deleted with all that is left in it."""
    name = f"standin-{next(_numbers)}"
    with cluster.client() as client:
        client.create(Namespace(metadata=ObjectMeta(name=name)))
        yield name
        client.delete(Namespace, name)


@pytest.fixture
def client(cluster: Cluster, namespace: str) -> Iterator[Client]:
    """An administrator's, in that namespace."""
    with cluster.client(namespace) as client:
        yield client


@pytest.fixture
def kubeconfig(cluster: Cluster, namespace: str, tmp_path: Path) -> Path:
    """An administrator's, whose context has that namespace."""
    config = json.loads(cluster.kubeconfig.read_text())
    config["contexts"][0]["context"]["namespace"] = namespace
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def make_stack(kubeconfig: Path, pulumi_command: PulumiCommand, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Another stack; all of a test are on one stand-in, whose ambient cluster is that of `kubeconfig`."""
    server, port = serve({"KUBECONFIG": str(kubeconfig)})
    made: list[Stack] = []

    def make() -> Stack:
        made.append(Stack(tmp_path / f"stack-{len(made)}", pulumi_command, port))
        return made[-1]

    yield make
    server.stop(0)


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack()
