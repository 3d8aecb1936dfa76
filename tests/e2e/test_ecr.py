"""Models whose images are in ECR, on a real cluster that pulls them with tokens that expire.

The providers are stand-ins, and AWS is a moto server behind an ECR-like registry: see tests/standins.
"""

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from lightkube import Client
from lightkube.models.batch_v1 import JobSpec
from lightkube.models.meta_v1 import ObjectMeta, OwnerReference
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.batch_v1 import CronJob, Job
from lightkube.resources.core_v1 import ConfigMap, Pod, Secret, Service

from asgard import naming

from ..cluster import Cluster, access
from ..cluster import registry as registries
from ..ports import free_port
from ..standins import aws, kubernetes_provider, write_launcher
from ..standins.aws import moto_server
from ..standins.aws.fixtures import REGION
from ..standins.aws.lifecycle_policy import Image, expired
from ..standins.aws.registry import EcrRegistry, running
from ..standins.aws.repository import REGISTRY
from ..waiting import until
from .live import EXAMPLE, REPOSITORY, Live, predict
from .test_stack import metadata

ROW = [[0.1, -0.2, 0.3, 0.4, -0.5]]
NAMESPACE = "asgard"
RBAC = REPOSITORY / "deploy" / "kubernetes" / "rbac.yaml"
KINDS: tuple[Any, ...] = (CronJob, Job, Secret, ConfigMap, Deployment, Service)
OTHER = EXAMPLE.read_text().replace("random_state=42", "random_state=7")

HELPER = """import base64, json, os, sys
import boto3

ecr = boto3.client("ecr", region_name=os.environ["AWS_REGION"])
token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
user, _, password = base64.b64decode(token).decode().partition(":")
print(json.dumps({"ServerURL": sys.stdin.read().strip(), "Username": user, "Secret": password}))
"""
"""What AWS's own `docker-credential-ecr-login` does: Docker's configuration names it for registries of ECR."""


@dataclass(frozen=True)
class Account:
    """An AWS account. `settings`: environment of an API that uses it for models on the cluster."""

    registry: EcrRegistry
    ecr: Any
    settings: dict[str, str]


@pytest.fixture(scope="module")
def account(cluster: Cluster, pulumi_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    folder = tmp_path_factory.mktemp("ecr")
    port = free_port()
    kubeconfig = access.for_service_account(cluster, "asgard", [RBAC], namespace=NAMESPACE)
    with (
        pytest.MonkeyPatch.context() as patch,
        registries.running(folder / "registry", port) as upstream,
        moto_server.running() as moto,
        running(upstream, moto, REGION, listen="0.0.0.0") as registry,
        kubernetes_provider(kubeconfig) as on_cluster,
    ):
        own = {
            **moto_server.ENVIRONMENT,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": f"http://{cluster.host}:{registry.address.partition(':')[2]}",
            "AWS_CONFIG_FILE": str(folder / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
            REGISTRY: registry.address,
        }
        for name, value in own.items():
            patch.setenv(name, value)
        on_aws, aws_port = aws.serve()
        puller = moto_server.user(moto, ["ecr:GetAuthorizationToken", "ecr:BatchGetImage"])
        settings = {
            **own,
            "PATH": f"{credential_helper(folder, registry.address)}:{pulumi_path}",
            "DOCKER_CONFIG": str(folder),
            "ASGARD_TARGET": "kubernetes",
            "ASGARD_NAMESPACE": NAMESPACE,
            "ASGARD_REGISTRY": "ecr",
            "ASGARD_BASE_IMAGE": cluster.base_image,
            "ASGARD_PULL_USERNAME": puller["AWS_ACCESS_KEY_ID"],
            "ASGARD_PULL_PASSWORD": puller["AWS_SECRET_ACCESS_KEY"],
            "KUBECONFIG": str(kubeconfig),
            "PULUMI_DEBUG_PROVIDERS": ",".join([*on_cluster, f"aws:{aws_port}"]),
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }
        yield Account(registry, boto3.client("ecr", region_name=REGION), settings)
        on_aws.stop(None)


def credential_helper(folder: Path, registry: str) -> Path:
    """A folder with the helper, which Docker's configuration in `folder` names for this registry."""
    (folder / "config.json").write_text(json.dumps({"credHelpers": {registry: "ecr-login"}}))
    programs = folder / "bin"
    programs.mkdir()
    (folder / "helper.py").write_text(HELPER)
    write_launcher(programs / "docker-credential-ecr-login", sys.executable, str(folder / "helper.py"))
    return programs


@pytest.fixture(scope="module")
def live(make_live: Callable[..., Live], account: Account) -> Live:
    live = make_live(**account.settings)
    live.ready()
    return live


def repositories(account: Account) -> list[str]:
    return [found["repositoryName"] for found in account.ecr.describe_repositories()["repositories"]]


def test_a_model_has_a_repository_of_its_own_and_takes_it_along_when_it_goes(
    live: Live, account: Account, cluster: Cluster
) -> None:
    first = live.deploy(EXAMPLE.read_text(), "iris")
    url, name = first["inference_url"], "asgard-model/iris"
    assert first["image_uri"] == f"{account.registry.address}/{name}:{first['deployment_id']}"
    assert predict(url, ROW)
    assert repositories(account) == [name]

    second = live.deploy(OTHER, "iris")
    assert second["inference_url"] == url
    assert metadata(url)["run_id"] == second["run_id"]
    images = account.ecr.describe_images(repositoryName=name)["imageDetails"]
    tags = sorted(sorted(image["imageTags"]) for image in images)
    assert tags == [[first["deployment_id"]], sorted([second["deployment_id"], naming.SERVING_TAG])]

    policy = account.ecr.get_lifecycle_policy(repositoryName=name)["lifecyclePolicyText"]
    later = [Image((f"iris-v{number}-abcdef",), number) for number in range(3, 20)]
    serving = Image((second["deployment_id"], naming.SERVING_TAG), 2)
    gone = expired(policy, [Image((first["deployment_id"],), 1), serving, *later])
    assert serving not in gone
    assert len(gone) == 8
    live.pulumi("preview", "--expect-no-changes", "-s", "iris")

    live.cli("destroy", "iris", "--yes")
    assert repositories(account) == []
    with cluster.client(NAMESPACE) as client:
        assert objects(client, "iris") == []


def test_pods_start_thirteen_hours_after_the_api_has_stopped(live: Live, account: Account, cluster: Cluster) -> None:
    answer = live.deploy(EXAMPLE.read_text(), "lasting")
    live.stop()
    with cluster.client(NAMESPACE) as client:
        old = pull_secret(client)
        account.registry.advance(timedelta(hours=13))
        forget(cluster, f"{account.registry.address}/asgard-model/lasting")
        client.delete(Pod, pods(client, "lasting")[0])
        refused = until(lambda: waiting(client, "lasting"), "the pull is refused", 180)
        assert "403" in refused

        run_cron_job(client)
        assert pull_secret(client) != old
        client.delete(Pod, pods(client, "lasting")[0])
        until(lambda: is_ready(client, "lasting"), "a pod is ready", 120)
        assert predict(answer["inference_url"], ROW)

        for stack in ("lasting", naming.PLATFORM_STACK):
            live.pulumi("destroy", "--yes", "--skip-preview", "-s", stack)
        until(lambda: not objects(client, "lasting", naming.PULL_SECRET), "nothing is left")


def objects(client: Client, *prefixes: str) -> list[str]:
    """By name; other models may be in the namespace too."""
    found = [(kind.__name__, str(item.metadata.name)) for kind in KINDS for item in client.list(kind)]
    return [f"{kind} {name}" for kind, name in found if name.startswith(prefixes)]


def is_ready(client: Client, model: str) -> bool:
    status = client.get(Deployment, model).status
    return status is not None and status.readyReplicas == 1


def pull_secret(client: Client) -> str:
    data = client.get(Secret, naming.PULL_SECRET).data
    assert data is not None
    return base64.b64decode(data[".dockerconfigjson"]).decode()


def forget(cluster: Cluster, repository: str) -> None:
    """Take a repository's images from the node, as its garbage collection does, or a new node has none."""
    containerd = ["ctr", "--address", str(cluster.folder / "containerd" / "containerd.sock"), "-n", "k8s.io", "images"]
    names = subprocess.run([*containerd, "ls", "-q"], capture_output=True, text=True, check=True).stdout.split()
    [digest] = {name.rpartition("@")[2] for name in names if name.startswith(f"{repository}@")}
    same = [name for name in names if name.startswith(f"{repository}@") or name == digest]
    subprocess.run([*containerd, "rm", "--sync", *same], capture_output=True, check=True)


def pods(client: Client, model: str) -> list[str]:
    found = client.list(Pod, labels={naming.NAME_LABEL: model})
    return [str(pod.metadata.name) for pod in found if pod.metadata and pod.metadata.deletionTimestamp is None]


def waiting(client: Client, model: str) -> str | None:
    """What the node says of an image that it cannot pull."""
    for pod in client.list(Pod, labels={naming.NAME_LABEL: model}):
        for container in (pod.status and pod.status.containerStatuses) or []:
            state = container.state.waiting if container.state else None
            if state is not None and state.reason == "ErrImagePull":
                return state.message
    return None


def run_cron_job(client: Client) -> None:
    """What the controller does when the hour has come."""
    found = client.get(CronJob, naming.RENEWAL)
    assert found.spec is not None
    spec = found.spec.jobTemplate.spec
    assert isinstance(spec, JobSpec)
    assert found.metadata is not None
    owner = OwnerReference("batch/v1", "CronJob", naming.RENEWAL, str(found.metadata.uid), controller=True)
    client.create(Job(metadata=ObjectMeta(name="by-the-clock", ownerReferences=[owner]), spec=spec))

    def is_done() -> bool:
        status = client.get(Job, "by-the-clock").status
        return status is not None and status.succeeded == 1

    until(is_done, "the pull secret is renewed", 120)
