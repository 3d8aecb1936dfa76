"""What the stand-in for the kubernetes provider waits for, through the real engine, on the real cluster."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pulumi
import pytest
from lightkube import Client
from lightkube.resources.core_v1 import ConfigMap as LiveConfigMap
from lightkube.resources.core_v1 import Pod as LivePod
from lightkube.types import PatchType
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.batch.v1 import Job
from pulumi_kubernetes.core.v1 import ConfigMap, Service

from ..cluster import Cluster, access
from .kubernetes import addresses
from .kubernetes_stacks import Program, Stack, declare

SLEEP = ["python3", "-c", "import time; time.sleep(3600)"]
WAIT_FOR_ADDRESS = {"pulumi.com/waitFor": "jsonpath={.status.loadBalancer.ingress}"}


def deployment(image: str, *, replicas: int = 1, seconds: int = 120, **container: Any) -> Program:
    limit = f"{seconds}s"
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "termination_grace_period_seconds": 1,
            "containers": [{"name": "web", "image": image, "command": SLEEP, **container}],
        },
    }

    def program() -> None:
        declare(
            Deployment,
            "web",
            metadata={"name": "web"},
            spec={"replicas": replicas, "selector": {"match_labels": {"app": "web"}}, "template": template},
            opts=pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create=limit, update=limit)),
        )

    return program


def service(annotations: dict[str, str], kind: str = "LoadBalancer", **selector: str) -> Program:
    def program() -> None:
        made = declare(
            Service,
            "web",
            metadata={"name": "web", "annotations": annotations},
            spec={"type": kind, "selector": selector or None, "ports": [{"port": 80, "target_port": 8080}]},
        )
        if kind == "LoadBalancer":
            pulumi.export("status", made.status)

    return program


def job(image: str, code: str) -> Program:
    container = {"name": "main", "image": image, "command": ["python3", "-c", code]}
    pod = {"restart_policy": "Never", "containers": [container]}

    def program() -> None:
        declare(Job, "job", metadata={"name": "job"}, spec={"backoff_limit": 0, "template": {"spec": pod}})

    return program


def test_a_deployment_is_there_when_all_its_pods_are(stack: Stack, cluster: Cluster, client: Client) -> None:
    image = cluster.base_image
    assert not stack.up(deployment(image)).failed
    assert stack.state("web")["outputs"]["status"]["readyReplicas"] == 1
    assert not stack.up(deployment(image, replicas=2)).failed
    assert stack.state("web")["outputs"]["status"]["readyReplicas"] == 2
    changed = stack.up(deployment(image, replicas=2, env=[{"name": "VERSION", "value": "2"}]))
    assert not changed.failed
    assert changed.steps[0].details == {"spec.template.spec.containers[0].env": "add"}
    assert stack.state("web")["outputs"]["status"]["updatedReplicas"] == 2
    assert "Deployment initialization complete" in changed.text()


def test_a_deployment_that_does_not_come_up_fails_with_its_pods_words_and_can_be_mended(
    stack: Stack, cluster: Cluster
) -> None:
    good = cluster.base_image
    bad = f"{cluster.registry}/test/missing:1"
    assert not stack.up(deployment(good)).failed
    run = stack.up(deployment(bad, seconds=8))
    assert run.failed
    assert "'web' timed out waiting to be Ready" in run.text()
    assert "Attempted to roll forward to new ReplicaSet" in run.text() or "Minimum number of Pods" in run.text()
    assert "ImagePull" in run.text()
    assert f"{cluster.registry}/test/missing:1" in run.text()
    kept = stack.state("web")
    assert kept["initErrors"]
    assert kept["outputs"]["spec"]["template"]["spec"]["containers"][0]["image"] == bad
    assert stack.preview(deployment(bad)).ops() == ["update"]
    assert not stack.up(deployment(good)).failed
    assert "initErrors" not in stack.state("web")
    assert stack.preview(deployment(good)).steps == []


def test_a_refresh_says_that_a_deployment_is_not_ready(stack: Stack, cluster: Cluster) -> None:
    crashing = deployment(cluster.base_image, seconds=5, readiness_probe={"exec": {"command": ["/bin/false"]}})
    assert stack.up(crashing).failed
    stack.refresh()
    errors = stack.state("web")["initErrors"]
    assert "Resource 'web' was created but failed to initialize" in errors
    assert "containers with unready status: [web]" in "".join(errors)


def test_a_service_waits_for_what_its_annotation_says(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_SETTLE_SECONDS", 24 * 3600)  # What it would wait for without one.
    assert not stack.up(service(WAIT_FOR_ADDRESS, app="web")).failed
    assert stack.outputs()["status"]["load_balancer"]["ingress"][0]["ip"].startswith("127.0.")


def test_a_service_waits_for_its_endpoints_to_settle_unless_told_otherwise(stack: Stack) -> None:
    began = time.monotonic()
    assert not stack.up(service({}, app="web")).failed
    assert time.monotonic() - began > 10


def test_an_address_that_never_comes_fails_in_the_time_that_is_given(
    stack: Stack, cluster: Cluster, namespace: str
) -> None:
    with cluster.without_address(namespace):
        limited = service({**WAIT_FOR_ADDRESS, "pulumi.com/timeoutSeconds": "3"}, app="web")
        run = stack.up(limited)
        assert run.failed
        assert "failed to fully initialize or become live: timed out waiting for the condition" in run.text()
        assert stack.state("web")["id"] == f"{namespace}/web"
        own = service({"pulumi.com/timeoutSeconds": "12"}, app="web")
        assert "Service was not allocated an IP address" in stack.up(own).text()
        assert not stack.up(service({"pulumi.com/skipAwait": "true"}, app="web")).failed
    assert not stack.up(limited).failed


@pytest.mark.parametrize("expression", ["jsonpath=.status", "ready", "[]", "jsonpath={.a}=b=c", "jsonpath={.a[}"])
def test_what_cannot_be_waited_for_is_refused(stack: Stack, expression: str) -> None:
    run = stack.up(service({"pulumi.com/waitFor": expression}, app="web"))
    assert run.failed


def test_conditions_of_all_kinds_are_waited_for(stack: Stack, cluster: Cluster) -> None:
    image = cluster.base_image

    def program() -> None:
        declare(
            Job,
            "job",
            metadata={
                "name": "job",
                "annotations": {"pulumi.com/waitFor": '["condition=Complete", "jsonpath={.status.succeeded}=1"]'},
            },
            spec={
                "template": {
                    "spec": {
                        "restart_policy": "Never",
                        "containers": [{"name": "main", "image": image, "command": ["true"]}],
                    }
                }
            },
        )

    assert not stack.up(program).failed
    assert stack.state("job")["outputs"]["status"]["succeeded"] == 1


def test_a_job_is_there_when_it_has_completed(stack: Stack, cluster: Cluster) -> None:
    done = job(cluster.base_image, "print(1)")
    assert not stack.up(done).failed
    assert stack.preview(done).steps == []
    assert "delete-replaced" in stack.up(job(cluster.base_image, "print(2)")).ops()


def test_a_job_that_fails_is_said_to_at_once(stack: Stack, cluster: Cluster) -> None:
    run = stack.up(job(cluster.base_image, "raise SystemExit(3)"))
    assert run.failed
    assert "[BackoffLimitExceeded]" in run.text()
    assert "completed with exit code 3" in run.text()


def test_a_deletion_waits_until_the_object_is_gone(stack: Stack, client: Client) -> None:
    def program() -> None:
        limit = pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(delete="3s"))
        declare(ConfigMap, "settings", metadata={"name": "settings"}, opts=limit)

    def hold(finalizers: list[str]) -> None:
        patch = {"metadata": {"finalizers": finalizers}}
        client.patch(LiveConfigMap, "settings", patch, patch_type=PatchType.MERGE)

    stack.up(program)
    hold(["example.com/held"])
    run = stack.destroy()
    assert run.failed
    assert "timed out waiting for the condition" in run.text()
    assert stack.state("settings")
    hold([])
    assert not stack.destroy().failed


def test_a_signal_to_the_engine_ends_the_wait_and_keeps_what_was_made(
    stack: Stack, cluster: Cluster, client: Client
) -> None:
    with ThreadPoolExecutor() as threads:
        run = threads.submit(stack.up, deployment(f"{cluster.registry}/test/missing:1", seconds=600))
        while not list(client.list(LivePod)):
            assert not run.done()
            time.sleep(0.1)
        [engine] = [child for child in psutil.Process().children() if child.name() == "pulumi"]
        engine.send_signal(signal.SIGINT)
        assert run.result().failed
    assert "was cancelled" in run.result().text()
    assert stack.state("web")["initErrors"]


ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: deployer}
rules:
  - {apiGroups: [apps], resources: [deployments], verbs: [create, get, list, watch, patch, delete]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: deployer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: deployer}
subjects: [{kind: User, name: deployer, apiGroup: rbac.authorization.k8s.io}]
"""


def test_a_user_that_may_not_watch_what_is_waited_for_is_told(
    stack: Stack, cluster: Cluster, kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "role.yaml").write_text(ROLE)
    given = access.for_user(cluster, "deployer", [tmp_path / "role.yaml"], namespace=namespace)
    kubeconfig.write_text(given.read_text())
    run = stack.up(deployment(cluster.base_image))
    assert run.failed
    assert "the real provider would wait without end" in run.text()
    assert 'User "deployer" cannot list resource' in run.text()
