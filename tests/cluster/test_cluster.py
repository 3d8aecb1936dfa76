"""The harness itself: what other tests rely on when they say "a real cluster"."""

import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from lightkube import Client, codecs
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import Container, PodSpec, ResourceRequirements
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace, Node, Pod, Secret, Service
from lightkube.types import PatchType

from . import access, harness, images, oci, packages, registry
from .leftovers import MARK
from .model import Cluster, HarnessError
from .parts import free_ports

WORKLOAD = Path(__file__).with_name("workload.yaml")
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
SECONDS = 120

_numbers = itertools.count(1)


def eventually(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """What the condition says when it is first true."""
    deadline = time.monotonic() + seconds
    while not (said := condition()):
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.1)
    return said


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = f"test-{next(_numbers)}"
    with cluster.client() as client:
        client.create(Namespace(metadata=ObjectMeta(name=name, labels=RESTRICTED)))
        yield name
        client.delete(Namespace, name)


@pytest.fixture
def client(cluster: Cluster, namespace: str) -> Iterator[Client]:
    with cluster.client(namespace) as client:
        yield client


def put_workload(cluster: Cluster, client: Client) -> None:
    text = WORKLOAD.read_text().replace("BASE_IMAGE", cluster.base_image)
    for document in codecs.load_all_yaml(text):
        client.apply(document, field_manager="test")


def address_of(client: Client, service: str = "web") -> str | None:
    status = client.get(Service, service).status
    balancer = status.loadBalancer if status else None
    ingress = balancer.ingress if balancer else None
    return ingress[0].ip if ingress else None


def is_rolled_out(client: Client) -> bool:
    deployment = client.get(Deployment, "web")
    assert deployment.metadata is not None
    status = deployment.status
    return bool(
        status
        and status.observedGeneration == deployment.metadata.generation
        and status.updatedReplicas == status.availableReplicas == status.replicas == 2
    )


def answer(address: str) -> str:
    return httpx.get(f"http://{address}/", trust_env=False, timeout=10).raise_for_status().text


def test_the_node_is_ready_and_nothing_of_it_listens_beyond_the_loopback(cluster: Cluster) -> None:
    with cluster.client() as client:
        [node] = client.list(Node)
    assert node.status is not None
    assert {c.type: c.status for c in node.status.conditions or []}["Ready"] == "True"
    ours = {p.pid for p in psutil.process_iter() if environment(p).get(MARK) == str(cluster.folder)}
    listening = {c.laddr for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.pid in ours}
    assert {address.ip for address in listening if address} == {"127.0.0.1"}


def environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def test_a_restricted_pod_runs_and_answers_at_the_load_balancers_address(cluster: Cluster, client: Client) -> None:
    put_workload(cluster, client)
    eventually(lambda: is_rolled_out(client))
    address = eventually(lambda: address_of(client))
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
    eventually(lambda: is_rolled_out(client))
    address = eventually(lambda: address_of(client))
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
        eventually(lambda: is_rolled_out(client))
        eventually(lambda: len(list(client.list(Pod))) == 2)
    finally:
        done.set()
        for asker in askers:
            asker.join()
    assert failures == []
    assert set(answers) == {"1", "2"}
    assert {answer(address) for _ in range(10)} == {"2"}


def test_a_connection_is_refused_where_no_pod_is_ready(cluster: Cluster, client: Client) -> None:
    put_workload(cluster, client)
    address = eventually(lambda: address_of(client))
    client.patch(Deployment, "web", {"spec": {"replicas": 0}}, patch_type=PatchType.MERGE)
    eventually(lambda: not list(client.list(Pod)))

    def is_reset() -> bool:
        try:
            answer(address)
        except httpx.TransportError:
            return True
        return False

    eventually(is_reset)


def test_an_address_is_withheld_as_long_as_asked(cluster: Cluster, client: Client, namespace: str) -> None:
    with cluster.without_address(namespace, "w*"):
        put_workload(cluster, client)
        time.sleep(3)  # Others get theirs within a fraction of that.
        assert address_of(client) is None
    eventually(lambda: address_of(client))


def test_a_service_that_goes_gives_its_address_back(cluster: Cluster, client: Client) -> None:
    put_workload(cluster, client)
    address = eventually(lambda: address_of(client))
    client.delete(Service, "web")
    eventually(lambda: not list(client.list(Service)))
    with pytest.raises(httpx.ConnectError):
        eventually(lambda: answer(address) == "nothing listens", seconds=10)


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
            assert eventually(reason) == "OOMKilled"
        finally:
            client.delete(Pod, "greedy")


def head(manifest: str) -> httpx.Response:
    return httpx.head(manifest, headers={"Accept": oci.MANIFEST}, trust_env=False)


def test_the_registry_takes_and_gives_up_an_image(cluster: Cluster, tmp_path: Path) -> None:
    image = images.pause(tmp_path)
    assert oci.push(image, cluster.registry, "some/where", "1") == f"{cluster.registry}/some/where:1"
    manifests = f"http://{cluster.registry}/v2/some/where/manifests"
    assert head(f"{manifests}/1").headers["Docker-Content-Digest"] == oci.digest(image.manifest)
    assert httpx.delete(f"{manifests}/{oci.digest(image.manifest)}", trust_env=False).status_code == 202
    assert head(f"{manifests}/1").status_code == 404


def test_a_registry_of_ones_own_asks_for_credentials_and_keeps_what_it_has(tmp_path: Path) -> None:
    [port] = free_ports(1)
    image = images.pause(tmp_path)
    with registry.running(tmp_path / "registry", port, {"me": "secret"}) as address:
        assert address == f"127.0.0.1:{port}"
        for auth in (None, ("me", "wrong")):
            with pytest.raises(httpx.HTTPStatusError, match="401"):
                oci.push(image, address, "a", "1", auth)
        oci.push(image, address, "a", "1", ("me", "secret"))
    with registry.running(tmp_path / "registry", port) as address:
        assert head(f"http://{address}/v2/a/manifests/1").status_code == 200


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
        eventually(
            lambda: [item.metadata and item.metadata.name for item in client.list(ConfigMap)] == ["kube-root-ca.crt"]
        )
        with pytest.raises(ApiError) as refused:
            list(client.list(Secret))
        assert refused.value.status.code == 403


def marks_of(folder: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter() if environment(p).get(MARK) == str(folder)]


def traces_of(folder: Path) -> list[str]:
    """Processes, mounts and files of a cluster other than its logs."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {folder}" in line]
    files = [str(path) for path in folder.iterdir() if path.suffix != ".log"]
    return [*map(str, marks_of(folder)), *mounts, *files]


def test_a_cluster_ends_with_the_process_it_is_for_and_leaves_nothing(tmp_path: Path, test_cache: Path) -> None:
    owner = subprocess.Popen(["sleep", "3600"])
    try:
        second = harness.start(tmp_path / "c", test_cache, for_process=owner.pid, on_log=print)
        with second.client("default") as client:
            put_workload(second, client)
            eventually(lambda: is_rolled_out(client))
            assert answer(eventually(lambda: address_of(client))) == "1"
        assert len(marks_of(second.folder)) > 7  # The shims of the pods carry the mark too.
    finally:
        owner.kill()
        owner.wait()
    eventually(lambda: not traces_of(tmp_path / "c"))


def test_what_a_killed_harness_leaves_is_taken_away(tmp_path: Path, test_cache: Path) -> None:
    left = harness.start(tmp_path / "c", test_cache, for_process=os.getpid(), on_log=print)
    with left.client("default") as client:
        put_workload(left, client)
        eventually(lambda: is_rolled_out(client))
    psutil.Process(int((left.folder / "harness.pid").read_text().split()[0])).kill()
    assert marks_of(left.folder)
    harness.stop(left.folder)
    assert traces_of(left.folder) == []


def test_packages_that_cannot_be_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(HarnessError, match=r"needs these Debian packages: .*etcd-server containerd runc"):
        packages.ensure(print)
