"""Registries of the harness."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from lightkube import Client
from lightkube.models.core_v1 import (
    Capabilities,
    Container,
    LocalObjectReference,
    PodSecurityContext,
    PodSpec,
    SeccompProfile,
    SecurityContext,
)
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Pod, Secret

from ..ports import free_port
from ..waiting import until
from . import images, oci, registry
from .harness import Prepared
from .model import Cluster


def head(manifest: str) -> httpx.Response:
    return httpx.head(manifest, headers={"Accept": oci.MANIFEST}, trust_env=False)


def test_the_registry_takes_and_gives_up_an_image(cluster: Cluster, tmp_path: Path) -> None:
    image = images.pause(tmp_path)
    assert oci.push(image, cluster.registry, "some/where", "1") == f"{cluster.registry}/some/where:1"
    manifests = f"http://{cluster.registry}/v2/some/where/manifests"
    assert head(f"{manifests}/1").headers["Docker-Content-Digest"] == oci.digest(image.manifest)
    assert httpx.delete(f"{manifests}/{oci.digest(image.manifest)}", trust_env=False).status_code == 202
    assert head(f"{manifests}/1").status_code == 404


def test_a_registry_of_ones_own_asks_for_credentials_and_keeps_what_it_has(prepared: Prepared, tmp_path: Path) -> None:
    port = free_port()
    image = images.pause(tmp_path)
    with registry.running(tmp_path / "registry", port, {"me": "secret"}) as address:
        assert address == f"127.0.0.1:{port}"
        for auth in (None, ("me", "wrong")):
            with pytest.raises(httpx.HTTPStatusError, match="401"):
                oci.push(image, address, "a", "1", auth)
        oci.push(image, address, "a", "1", ("me", "secret"))
    with registry.running(tmp_path / "registry", port) as address:
        assert head(f"http://{address}/v2/a/manifests/1").status_code == 200


def test_the_node_pulls_from_any_registry_of_this_machine_with_the_pods_credentials(
    cluster: Cluster, client: Client, tmp_path: Path
) -> None:
    port = free_port()
    with registry.running(tmp_path / "registry", port, {"me": "secret"}) as address:
        image = oci.push(images.pause(tmp_path), address, "a", "1", ("me", "secret"))
        login = {"auths": {address: {"username": "me", "password": "secret"}}}
        client.create(
            Secret(
                metadata=ObjectMeta(name="pull"),
                type="kubernetes.io/dockerconfigjson",
                stringData={".dockerconfigjson": json.dumps(login)},
            )
        )

        def state(name: str) -> Any:
            status = client.get(Pod, name).status
            return status.containerStatuses[0].state if status and status.containerStatuses else None

        for name, secrets in (("stranger", []), ("guest", [LocalObjectReference(name="pull")])):
            client.create(Pod(metadata=ObjectMeta(name=name), spec=restricted(image, secrets)))
        until(lambda: (found := state("guest")) and found.running)
        until(lambda: (found := state("stranger")) and found.waiting.reason in ("ErrImagePull", "ImagePullBackOff"))


def restricted(image: str, pull_secrets: list[LocalObjectReference]) -> PodSpec:
    return PodSpec(
        imagePullSecrets=pull_secrets,
        terminationGracePeriodSeconds=1,
        securityContext=PodSecurityContext(
            runAsNonRoot=True, runAsUser=10001, seccompProfile=SeccompProfile(type="RuntimeDefault")
        ),
        containers=[
            Container(
                name="main",
                image=image,
                securityContext=SecurityContext(
                    allowPrivilegeEscalation=False, capabilities=Capabilities(drop=["ALL"])
                ),
            )
        ],
    )
