"""The same REST calls and the same `pulumi`, with the models on a real cluster.

The kubernetes provider is a stand-in, attached to the engine: see tests/standins/kubernetes.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod, Secret, Service
from lightkube.resources.networking_v1 import NetworkPolicy
from lightkube.resources.policy_v1 import PodDisruptionBudget

from ..cluster import access
from ..cluster.model import Cluster
from ..standins import kubernetes
from .live import EXAMPLE, HTTP, REPOSITORY, Live, body, predict
from .test_stack import edit, metadata

ROW = [[0.1, -0.2, 0.3, 0.4, -0.5]]
NAMESPACE = "asgard"
RBAC = REPOSITORY / "deploy" / "kubernetes" / "rbac.yaml"
KINDS: tuple[Any, ...] = (Deployment, Service, Secret, NetworkPolicy, PodDisruptionBudget, Pod)
OTHER = EXAMPLE.read_text().replace("random_state=42", "random_state=7")


@pytest.fixture(scope="module")
def settings(cluster: Cluster) -> Iterator[dict[str, str]]:
    """Environment of an API and its commands that deploy to the cluster, with the documented role and no more."""
    kubeconfig = access.for_service_account(cluster, "asgard", [RBAC], namespace=NAMESPACE)
    server, port = kubernetes.serve({"KUBECONFIG": str(kubeconfig)})
    yield {
        "ASGARD_TARGET": "kubernetes",
        "ASGARD_NAMESPACE": NAMESPACE,
        "ASGARD_REGISTRY": f"{cluster.registry}/acme",
        "ASGARD_BASE_IMAGE": cluster.base_image,
        "KUBECONFIG": str(kubeconfig),
        "PULUMI_DEBUG_PROVIDERS": f"kubernetes:{port}",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }
    server.stop(None)


@pytest.fixture(scope="module")
def live(make_live: Callable[..., Live], settings: dict[str, str]) -> Live:
    live = make_live(**settings)
    live.ready()
    return live


@pytest.fixture(scope="module")
def impatient(make_live: Callable[..., Live], settings: dict[str, str]) -> Live:
    """Another API on the same cluster, for what is not going to come up."""
    live = make_live(**settings, ASGARD_ROLLOUT_TIMEOUT_SECONDS="30")
    live.ready()
    return live


def objects(cluster: Cluster, model: str) -> list[str]:
    client = cluster.client(NAMESPACE)
    labels: dict[str, Any] = {"app.kubernetes.io/name": model}
    return [f"{kind.__name__} {item.metadata.name}" for kind in KINDS for item in client.list(kind, labels=labels)]


def tags(cluster: Cluster, model: str) -> list[str]:
    answer = HTTP.get(f"http://{cluster.registry}/v2/acme/{model}/tags/list")
    return sorted(answer.json().get("tags") or []) if answer.is_success else []


@contextmanager
def under_load(url: str) -> Iterator[list[str]]:
    """Keep asking on kept and on new connections; gives what failed."""
    failed: list[str] = []
    ended = threading.Event()

    def ask(kept: bool) -> None:
        client = httpx.Client(timeout=30)
        while not ended.is_set():
            try:
                answer = (client if kept else httpx).post(f"{url}/predict", json={"data": ROW}, timeout=30)
                if answer.status_code != 200:
                    failed.append(f"{answer.status_code} {answer.text[:200]}")
            except httpx.HTTPError as error:
                failed.append(repr(error))
            time.sleep(0.02)

    threads = [threading.Thread(target=ask, args=[number % 2 == 0]) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def steps(live: Live, model: str, *options: str) -> list[dict[str, Any]]:
    """What a preview would do."""
    printed = live.pulumi("preview", "--json", *options, "-s", model).stdout
    return [step for step in json.loads(printed)["steps"] if step["op"] != "same"]


def test_a_model_is_deployed_updated_rolled_back_inspected_and_torn_down(live: Live, cluster: Cluster) -> None:
    first = live.deploy(EXAMPLE.read_text(), "iris", environment_vars={"TOKEN": "s3cret-value"})
    url = first["inference_url"]
    assert url.startswith("http://127.")
    assert first["namespace"] == NAMESPACE
    assert first["image_uri"] == f"{cluster.registry}/acme/iris:{first['deployment_id']}"
    assert predict(url, ROW)
    assert metadata(url)["run_id"] == first["run_id"]
    assert "s3cret-value" not in live.pulumi("stack", "export", "-s", "iris").stdout
    live.pulumi("preview", "--expect-no-changes", "-s", "iris")
    before = live.stack_file("iris").read_text().splitlines()

    with under_load(url) as failed:
        second = live.deploy(OTHER, "iris")
        assert second["inference_url"] == url
        assert metadata(url)["run_id"] == second["run_id"]
        after = live.stack_file("iris").read_text().splitlines()
        changed = {new.split(":")[0].strip() for old, new in zip(before, after, strict=True) if old != new}
        assert changed == {"version", "run_id", "digest", "bundle"}
        live.cli("rollback", "iris")
        assert metadata(url)["run_id"] == first["run_id"]
    assert failed == []
    live.pulumi("preview", "--expect-no-changes", "-s", "iris")
    assert tags(cluster, "iris") == sorted([first["deployment_id"], second["deployment_id"], "serving"])

    edit(live, "iris", lambda model: model["deployment"].update(replicas=2))
    [update] = [step for step in steps(live, "iris") if step["op"] == "update"]
    assert list(update["detailedDiff"]) == ["spec.replicas"]
    live.pulumi("up", "--yes", "--skip-preview", "-s", "iris")
    assert ready(cluster, "iris") == 2

    cluster.client(NAMESPACE).patch(Deployment.Scale, "iris", {"spec": {"replicas": 1}})
    live.pulumi("refresh", "--yes", "-s", "iris")
    [drift] = [step for step in steps(live, "iris") if step["op"] == "update"]
    assert list(drift["detailedDiff"]) == ["spec.replicas"]
    live.pulumi("up", "--yes", "--skip-preview", "-s", "iris")
    assert ready(cluster, "iris") == 2

    live.pulumi("destroy", "--yes", "--skip-preview", "-s", "iris")
    assert objects(cluster, "iris") == []
    assert tags(cluster, "iris") == []
    with pytest.raises(httpx.TransportError):
        HTTP.get(f"{url}/health")

    live.pulumi("up", "--yes", "--skip-preview", "-s", "iris")
    again = json.loads(live.pulumi("stack", "output", "--json", "-s", "iris").stdout)
    assert metadata(again["inference_url"])["run_id"] == first["run_id"]
    live.cli("destroy", "iris", "--yes", "--purge")
    assert objects(cluster, "iris") == []


def ready(cluster: Cluster, model: str) -> int:
    status = cluster.client(NAMESPACE).get(Deployment, model).status
    assert status is not None
    return status.readyReplicas or 0


BROKEN_AT_LOAD = """
import mlflow, os

class Broken(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        if os.path.isdir("/app/env"):
            raise RuntimeError("this model does not like containers")

    def predict(self, context, model_input):
        return [0] * len(model_input)

with mlflow.start_run():
    mlflow.pyfunc.log_model(name="model", python_model=Broken())
"""


@pytest.fixture(scope="module")
def served(live: Live) -> dict[str, Any]:
    """A model that serves, for those who try to break it."""
    answer = live.deploy(EXAMPLE.read_text(), "steady")
    edit(live, "steady", lambda model: model["kubernetes"].update(rollout_timeout_seconds=30))
    live.pulumi("up", "--yes", "--skip-preview", "-s", "steady")
    return answer


def failed(live: Live, script: str, model: str, **fields: Any) -> dict[str, Any]:
    response = live.post(body(script, model, **fields))
    assert response.status_code in (502, 504), response.text
    problem: dict[str, Any] = {**response.json(), "status": response.status_code}
    assert problem["stage"] == "infrastructure"
    assert problem["undo"] == "complete"
    return problem


def as_before(live: Live, cluster: Cluster, served: dict[str, Any], text: str) -> None:
    assert metadata(served["inference_url"])["run_id"] == served["run_id"]
    assert live.stack_file("steady").read_text() == text
    assert tags(cluster, "steady") == sorted([served["deployment_id"], "serving"])
    live.pulumi("preview", "--expect-no-changes", "-s", "steady")


def test_a_version_that_crashes_at_start_is_told_with_its_log_and_the_former_one_serves_on(
    live: Live, cluster: Cluster, served: dict[str, Any]
) -> None:
    text = live.stack_file("steady").read_text()
    with under_load(served["inference_url"]) as failures:
        problem = failed(live, BROKEN_AT_LOAD, "steady")
    assert problem["status"] == 502
    assert problem["reason"] in ("Crashed", "CrashLoopBackOff")
    assert any("does not like containers" in line for line in problem["log_tail"])
    assert failures == []
    as_before(live, cluster, served, text)
    versions = live.get("/mlops/models/steady")["versions"]
    assert [version["current_stage"] for version in versions] == ["None", "Production"]


def test_a_first_version_that_crashes_at_start_leaves_nothing(impatient: Live, cluster: Cluster) -> None:
    live = impatient
    failed(live, BROKEN_AT_LOAD, "stillborn")
    assert objects(cluster, "stillborn") == []
    assert tags(cluster, "stillborn") == []
    assert not live.stack_file("stillborn").exists()
    assert "stillborn" not in live.pulumi("stack", "ls", "--json").stdout


def test_pods_that_fit_on_no_node_are_told_as_such(live: Live, cluster: Cluster, served: dict[str, Any]) -> None:
    text = live.stack_file("steady").read_text()
    problem = failed(live, OTHER, "steady", deployment_config={"memory_limit": "900Gi"})
    assert problem["status"] == 504
    assert problem["reason"] == "FailedScheduling"
    assert "memory" in problem["detail"]
    as_before(live, cluster, served, text)


def test_a_load_balancer_that_gets_no_address_ends_the_deploy_and_leaves_nothing(
    impatient: Live, cluster: Cluster
) -> None:
    with cluster.without_address(NAMESPACE, "unreachable"):
        problem = failed(impatient, EXAMPLE.read_text(), "unreachable")
    assert problem["status"] == 504
    assert objects(cluster, "unreachable") == []
    assert tags(cluster, "unreachable") == []
