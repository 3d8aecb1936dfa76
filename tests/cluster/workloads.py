"""What tests put on a cluster, and how they look at it."""

from pathlib import Path
from typing import Final

import httpx
import psutil
from lightkube import Client, codecs
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Service

from .leftovers import MARK
from .model import Cluster

WORKLOAD: Final = Path(__file__).with_name("workload.yaml")
"""A Deployment of two pods and a Service of type LoadBalancer, both `web`."""


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


def marks_of(folder: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter() if environment(p).get(MARK) == str(folder)]


def traces_of(folder: Path) -> list[str]:
    """Processes, mounts and files of a cluster other than its logs."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {folder}" in line]
    files = [str(path) for path in folder.iterdir() if path.suffix != ".log"]
    return [*map(str, marks_of(folder)), *mounts, *files]


def environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}
