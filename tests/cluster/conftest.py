"""A namespace of its own, with Pod Security on, for each test."""

import itertools
from collections.abc import Iterator

import pytest
from lightkube import Client
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace

from .model import Cluster

_numbers = itertools.count(1)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = f"test-{next(_numbers)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with cluster.client() as client:
        client.create(Namespace(metadata=ObjectMeta(name=name, labels=labels)))
        yield name
        client.delete(Namespace, name)


@pytest.fixture
def client(cluster: Cluster, namespace: str) -> Iterator[Client]:
    """An administrator's, in that namespace."""
    with cluster.client(namespace) as client:
        yield client
