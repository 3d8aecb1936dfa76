"""What tests ask of the cluster, the registry and MLflow behind an API that deploys there."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod, Secret, Service
from lightkube.resources.networking_v1 import NetworkPolicy
from lightkube.resources.policy_v1 import PodDisruptionBudget
from mlflow import MlflowClient

from ..cluster.model import Cluster
from .live import HTTP, REPOSITORY, Live

NAMESPACE = "asgard"
RBAC = REPOSITORY / "deploy" / "kubernetes" / "rbac.yaml"
KINDS: tuple[Any, ...] = (Deployment, Service, Secret, NetworkPolicy, PodDisruptionBudget, Pod)
ROW = [[0.1, -0.2, 0.3, 0.4, -0.5]]
SMALL = {"memory_limit": "512Mi"}


def constant(answer: int, at_load: str = "pass") -> str:
    """A script whose model always answers that. `at_load`: a statement that its pods run when they load it."""
    return f"""
import mlflow, os

class Constant(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        if os.path.isdir("/app/env"):
            {at_load}

    def predict(self, context, model_input, params=None):
        return [{answer}] * len(model_input)

with mlflow.start_run():
    mlflow.pyfunc.log_model(name="model", python_model=Constant())
"""


def objects(cluster: Cluster, model: str) -> list[str]:
    """All of the model's on the cluster."""
    client = cluster.client(NAMESPACE)
    labels: dict[str, Any] = {"app.kubernetes.io/name": model}
    return [f"{kind.__name__} {item.metadata.name}" for kind in KINDS for item in client.list(kind, labels=labels)]


def tags(cluster: Cluster, model: str) -> list[str]:
    """Of the model's images in the registry."""
    answer = HTTP.get(f"http://{cluster.registry}/v2/acme/{model}/tags/list")
    return sorted(answer.json().get("tags") or []) if answer.is_success else []


def ready(cluster: Cluster, model: str) -> int:
    """How many pods are."""
    status = cluster.client(NAMESPACE).get(Deployment, model).status
    assert status is not None
    return status.readyReplicas or 0


def statuses(live: Live, model: str) -> dict[int, str | None]:
    """What MLflow's tag says of each version."""
    found = MlflowClient(live.status()["mlflow_uri"]).search_model_versions(f"name='{model}'")
    return {int(version.version): version.tags.get("asgard.status") for version in found}


def steps(live: Live, model: str) -> dict[str, tuple[str, set[str]]]:
    """What a preview would do, by type of resource: the step and the properties that differ."""
    found = {}
    for step in json.loads(live.pulumi("preview", "--json", "-s", model).stdout)["steps"]:
        kind = step["urn"].split("::")[2].split("$")[-1]
        if step["op"] != "same" and kind != "pulumi:pulumi:Stack":
            found[kind] = (step["op"], set(step.get("detailedDiff") or {}))
    return found


@contextmanager
def under_load(*urls: str) -> Iterator[dict[str, list[str]]]:
    """Keep asking each of them, on a kept and on new connections; gives what failed."""
    failed: dict[str, list[str]] = {url: [] for url in urls}
    ended = threading.Event()

    def ask(url: str, client: Any) -> None:
        while not ended.is_set():
            try:
                answer = client.post(f"{url}/predict", json={"data": ROW}, timeout=30)
                if answer.status_code != 200:
                    failed[url].append(f"{answer.status_code} {answer.text[:200]}")
            except httpx.HTTPError as error:
                failed[url].append(repr(error))
            time.sleep(0.1 * len(urls))  # more would take the CPU that what is tested needs

    clients = [httpx.Client(timeout=30), HTTP]
    threads = [threading.Thread(target=ask, args=[url, client]) for url in urls for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        ended.set()
        for thread in threads:
            thread.join()
