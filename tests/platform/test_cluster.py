"""What is read out of what a cluster says of pods that do not come up."""

import json
from pathlib import Path

import pytest
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.models.core_v1 import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    PodCondition,
    PodStatus,
)
from lightkube.resources.core_v1 import Pod

from asgard.errors import InfrastructureFailed, InfrastructureTimeout
from asgard.platform import cluster
from asgard.platform.cluster import Trouble
from asgard.settings import Settings
from asgard.stacks.spec import DeploymentConfig, KubernetesConfig, ModelSpec, Release

SPEC = ModelSpec(
    name="iris",
    target="kubernetes",
    namespace="asgard",
    deployment=DeploymentConfig(),
    kubernetes=KubernetesConfig(registry="registry.test/acme"),
    release=Release(version=1, run_id="1234e56", digest="sha256:" + "0" * 64, bundle="mlflow-artifacts:/1/x"),
)


def pod(state: ContainerState | None = None, last: ContainerState | None = None, **status: object) -> Pod:
    containers = []
    if state is not None:
        containers = [
            ContainerStatus(
                name="model", image="", imageID="", ready=False, restartCount=0, state=state, lastState=last
            )
        ]
    return Pod(status=PodStatus(containerStatuses=containers, **status))  # type: ignore[arg-type]


BACKING_OFF = ContainerState(waiting=ContainerStateWaiting(reason="CrashLoopBackOff", message="back-off 40s"))
RUNNING = ContainerState(running=ContainerStateRunning())


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (pod(ContainerState(waiting=ContainerStateWaiting(reason="ImagePullBackOff"))), "ImagePullBackOff"),
        (pod(ContainerState(waiting=ContainerStateWaiting(reason="ErrImagePull"))), "ImagePullBackOff"),
        (pod(BACKING_OFF, ContainerState(terminated=ContainerStateTerminated(137, reason="OOMKilled"))), "OOMKilled"),
        (pod(BACKING_OFF, ContainerState(terminated=ContainerStateTerminated(1, reason="Error"))), "Crashed"),
        (pod(RUNNING), "Unhealthy"),
        (
            pod(conditions=[PodCondition(type="PodScheduled", status="False", message="0/1 nodes are available")]),
            "FailedScheduling",
        ),
    ],
)
def test_the_most_telling_reason_is_named(found: Pod, reason: str) -> None:
    assert cluster.most_telling(found)[0] == reason


@pytest.mark.parametrize(
    ("said", "found", "kind"),
    [
        ("the Deployment exceeded its progress deadline", Trouble("OOMKilled", "exit code 137", []), 502),
        ("the Deployment exceeded its progress deadline", Trouble("FailedScheduling", "0/1 nodes", []), 504),
        ("timed out waiting for the Service", Trouble(None, None, []), 504),
        ("the registry refuses", Trouble(None, None, []), 502),
    ],
)
def test_only_what_ran_out_of_time_is_a_timeout(
    said: str, found: Trouble, kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "trouble", lambda *_: found)
    error = cluster.explained(Settings(), SPEC, InfrastructureFailed(said))
    assert isinstance(error, InfrastructureTimeout) == (kind == 504)
    assert error.reason == found.reason


def kubeconfig(folder: Path, name: str, *, current: str | None = None, server: str | None = None) -> str:
    """A file of that name with one context of that name, whose certificate is beside it."""
    path = folder / name / "config"
    path.parent.mkdir()
    address = server or f"https://{name}.test"
    document = {
        "clusters": [{"name": name, "cluster": {"server": address, "certificate-authority": "ca.crt"}}],
        "users": [{"name": name, "user": {"token": name}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": current,
    }
    path.write_text(json.dumps(document))
    return str(path)


@pytest.mark.parametrize(("context", "found"), [(None, "second"), ("first", "first"), ("second", "second")])
def test_several_kubeconfigs_are_one_as_for_kubectl(tmp_path: Path, context: str | None, found: str) -> None:
    files = ("nothing", kubeconfig(tmp_path, "first"), kubeconfig(tmp_path, "second", current="second"))
    single = cluster._merged([Path(file) for file in files], context).get(context)
    assert single is not None
    assert single.cluster.server == f"https://{found}.test"
    assert single.user is not None
    assert single.user.token == found
    assert single.abs_file("ca.crt") == tmp_path / found / "ca.crt"


def test_what_the_first_kubeconfig_says_counts(tmp_path: Path) -> None:
    first = kubeconfig(tmp_path, "one", current="one")
    (tmp_path / "again").mkdir()
    second = kubeconfig(tmp_path / "again", "one", current="other", server="https://another.test")
    single = cluster._merged([Path(first), Path(second)], None).get()
    assert single is not None
    assert single.cluster.server == "https://one.test"


def test_the_usual_kubeconfig_counts_before_a_pods_own_account_as_for_kubectl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = tmp_path / "account"
    account.mkdir()
    for name in ("token", "namespace", "ca.crt"):
        (account / name).write_text("of the pod")
    from_account = KubeConfig.from_service_account
    monkeypatch.setattr(KubeConfig, "from_service_account", lambda **_: from_account(service_account=account))
    for name, value in {"KUBERNETES_SERVICE_HOST": "pod.test", "KUBERNETES_SERVICE_PORT": "443"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    asked: list[SingleConfig] = []
    monkeypatch.setattr("lightkube.Client", lambda config, **_: asked.append(config))
    cluster._client(Settings(), "asgard")
    kubeconfig(tmp_path, ".kube", current=".kube", server="https://usual.test")
    cluster._client(Settings(), "asgard")
    assert [config.cluster.server for config in asked] == ["https://pod.test:443", "https://usual.test"]
