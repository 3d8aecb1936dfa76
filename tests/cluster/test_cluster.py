"""The harness itself: what other tests rely on when they say "a real cluster"."""

import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from lightkube import Client
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import (
    Container,
    PodSpec,
    ResourceRequirements,
)
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Node, Pod, Secret, Service
from lightkube.types import PatchType

from ..waiting import until
from . import access
from .leftovers import MARK
from .model import Cluster
from .workloads import address_of, answer, environment, is_rolled_out, put_workload


def test_the_node_is_ready_and_nothing_of_it_listens_beyond_the_loopback(cluster: Cluster) -> None:
    with cluster.client() as client:
        [node] = client.list(Node)
    assert node.status is not None
    assert {c.type: c.status for c in node.status.conditions or []}["Ready"] == "True"
    ours = {p.pid for p in psutil.process_iter() if environment(p).get(MARK) == str(cluster.folder)}
    listening = {c.laddr for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.pid in ours}
    assert {address.ip for address in listening if address} == {"127.0.0.1"}


def test_a_restricted_pod_runs_and_answers_at_the_load_balancers_address(cluster: Cluster, client: Client) -> None:
    put_workload(cluster, client)
    until(lambda: is_rolled_out(client))
    address = until(lambda: address_of(client))
    assert address.startswith("127.0.")
    assert answer(address) == "1"
    [pod, _] = client.list(Pod)
    assert pod.metadata is not None
    assert "GET /" in "".join(client.log(pod.metadata.name or "", newlines=True))


def test_a_pod_that_leaves_the_restricted_profile_is_refused(cluster: Cluster, client: Client) -> None:
    spec = PodSpec(containers=[Container(name="root", image=cluster.base_image)])
    with pytest.raises(ApiError, match='violates PodSecurity "restricted') as refused:
        client.create(Pod(metadata=ObjectMeta(name="root"), spec=spec))
    assert refused.value.status.code == 403


def test_an_update_under_traffic_loses_no_request(cluster: Cluster, client: Client) -> None:
    put_workload(cluster, client)
    until(lambda: is_rolled_out(client))
    address = until(lambda: address_of(client))
    answers: list[str] = []
    failures: list[Exception] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                answers.append(answer(address))
            except httpx.HTTPError as failure:
                failures.append(failure)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        container = {"name": "web", "env": [{"name": "VERSION", "value": "2"}]}
        new = {"spec": {"template": {"spec": {"containers": [container]}}}}
        client.patch(Deployment, "web", new, patch_type=PatchType.STRATEGIC)
        until(lambda: is_rolled_out(client))
        until(lambda: len(list(client.list(Pod))) == 2)
    finally:
        done.set()
        for asker in askers:
            asker.join()
    assert failures == []
    assert set(answers) == {"1", "2"}
    assert {answer(address) for _ in range(10)} == {"2"}


def test_a_connection_is_refused_where_no_pod_is_ready(cluster: Cluster, client: Client) -> None:
    put_workload(cluster, client)
    address = until(lambda: address_of(client))
    client.patch(Deployment, "web", {"spec": {"replicas": 0}}, patch_type=PatchType.MERGE)
    until(lambda: not list(client.list(Pod)))

    def is_reset() -> bool:
        try:
            answer(address)
        except httpx.TransportError:
            return True
        return False

    until(is_reset)


def test_an_address_is_withheld_as_long_as_asked(cluster: Cluster, client: Client, namespace: str) -> None:
    with cluster.without_address(namespace, "w*"):
        put_workload(cluster, client)
        time.sleep(3)  # Others get theirs within a fraction of that.
        assert address_of(client) is None
    until(lambda: address_of(client))


def test_a_service_that_goes_gives_its_address_back(cluster: Cluster, client: Client) -> None:
    put_workload(cluster, client)
    address = until(lambda: address_of(client))
    client.delete(Service, "web")
    until(lambda: not list(client.list(Service)))
    with pytest.raises(httpx.ConnectError):
        until(lambda: answer(address) == "nothing listens", seconds=10)


def test_a_container_over_its_memory_limit_is_killed_for_it(cluster: Cluster) -> None:
    too_much = ["python3", "-c", "x = bytearray(200_000_000)"]
    limits = ResourceRequirements(limits={"memory": "32Mi"})
    spec = PodSpec(
        restartPolicy="Never",
        containers=[Container(name="main", image=cluster.base_image, command=too_much, resources=limits)],
    )
    with cluster.client("default") as client:
        client.create(Pod(metadata=ObjectMeta(name="greedy"), spec=spec))

        def reason() -> str | None:
            status = client.get(Pod, "greedy").status
            state = status.containerStatuses[0].state if status and status.containerStatuses else None
            return state.terminated.reason if state and state.terminated else None

        try:
            assert until(reason) == "OOMKilled"
        finally:
            client.delete(Pod, "greedy")


ROLE = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects:
  - {kind: User, name: jane, apiGroup: rbac.authorization.k8s.io}
  - {kind: ServiceAccount, name: reader, namespace: NAMESPACE}
"""


@pytest.mark.parametrize("who", ["user", "service account"])
def test_others_may_do_what_the_manifests_say_and_no_more(
    cluster: Cluster, namespace: str, tmp_path: Path, who: str
) -> None:
    manifest = tmp_path / "role.yaml"
    manifest.write_text(ROLE.replace("NAMESPACE", namespace))
    if who == "user":
        kubeconfig = access.for_user(cluster, "jane", [manifest], namespace=namespace)
    else:
        kubeconfig = access.for_service_account(cluster, "reader", [manifest], namespace=namespace)
    with Client(KubeConfig.from_file(kubeconfig), trust_env=False) as client:
        assert client.namespace == namespace
        until(lambda: [item.metadata and item.metadata.name for item in client.list(ConfigMap)] == ["kube-root-ca.crt"])
        with pytest.raises(ApiError) as refused:
            list(client.list(Secret))
        assert refused.value.status.code == 403
