"""Kubeconfigs: the parts' own, and those of users and service accounts that may do what given manifests say."""

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from lightkube import codecs
from lightkube.models.authentication_v1 import TokenRequestSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ServiceAccount, ServiceAccountToken

from . import certificates
from .certificates import Pair
from .model import Cluster

CONTEXT: Final = "asgard-test"
_FIELD_MANAGER: Final = "test-cluster"
_TOKEN_SECONDS: Final = 24 * 3600


def for_user(cluster: Cluster, user: str, manifests: Iterable[Path] = (), *, namespace: str = "default") -> Path:
    """A kubeconfig of `user`, known by a certificate, after an administrator has applied `manifests`.

    They are files of Kubernetes YAML: the roles and their bindings to that user. `namespace`: of the context, and of
    objects that name none.
    """
    apply(cluster, manifests, namespace)
    pair = certificates.client(_authority(cluster), user)
    return write(cluster.folder / "access" / f"user-{user}", _server(cluster), _authority(cluster), pair, namespace)


def for_service_account(cluster: Cluster, name: str, manifests: Iterable[Path] = (), *, namespace: str) -> Path:
    """The same for a service account, known by a token of 24 hours. `manifests` must make it."""
    apply(cluster, manifests, namespace)
    with cluster.client(namespace) as client:
        client.get(ServiceAccount, name)
        spec = TokenRequestSpec(audiences=[], expirationSeconds=_TOKEN_SECONDS)
        request = ServiceAccountToken(metadata=ObjectMeta(name=name, namespace=namespace), spec=spec)
        status = client.create(request, name).status
    assert status is not None
    assert status.token is not None
    path = cluster.folder / "access" / f"service-account-{namespace}-{name}"
    return write(path, _server(cluster), _authority(cluster), status.token, namespace)


def apply(cluster: Cluster, manifests: Iterable[Path], namespace: str = "default") -> None:
    """As an administrator."""
    with cluster.client(namespace) as client:
        for manifest in manifests:
            for document in codecs.load_all_yaml(manifest.read_text()):
                client.apply(document, field_manager=_FIELD_MANAGER, force=True)


def write(path: Path, server: str, authority: Pair, identity: Pair | str, namespace: str = "default") -> Path:
    """A kubeconfig (JSON, which is YAML) for whom a certificate or a token says."""
    if isinstance(identity, str):
        user: dict[str, Any] = {"token": identity}
    else:
        user = {
            "client-certificate-data": _base64(identity.certificate),
            "client-key-data": _base64(identity.key),
        }
    cluster = {"server": server, "certificate-authority-data": _base64(authority.certificate)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": CONTEXT, "user": user}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": namespace}}],
        "current-context": CONTEXT,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_text(json.dumps(config, indent=1))
    return path


def _server(cluster: Cluster) -> str:
    address: str = json.loads(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    return address


def _authority(cluster: Cluster) -> Pair:
    folder = cluster.folder / "pki"
    return Pair((folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
