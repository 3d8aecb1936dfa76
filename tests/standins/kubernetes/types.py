"""The resource types that the stand-in knows, and what each may not change in place.

The lists are those of the real provider, provider/pkg/provider/diff.go in pulumi/pulumi-kubernetes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Manifest = dict[str, Any]
"""A Kubernetes object, or as much of one as somebody gives."""


@dataclass(frozen=True)
class Type:
    """`replaced_on`: paths a change of which replaces the object, beside its name and namespace."""

    api_version: str
    kind: str
    namespaced: bool = True
    replaced_on: tuple[str, ...] = ()

    @property
    def token(self) -> str:
        """As Pulumi names the type: `kubernetes:apps/v1:Deployment`."""
        group_version = self.api_version if "/" in self.api_version else f"core/{self.api_version}"
        return f"kubernetes:{group_version}:{self.kind}"


_SELECTOR: Final = ("spec.selector",)
_RBAC: Final = "rbac.authorization.k8s.io/v1"

TYPES: Final[Mapping[str, Type]] = {
    known.token: known
    for known in (
        Type("v1", "Namespace", namespaced=False),
        Type("v1", "Secret", replaced_on=("type",)),
        Type("v1", "ConfigMap"),
        Type("v1", "Service", replaced_on=("spec.clusterIP",)),
        Type("v1", "ServiceAccount"),
        Type("apps/v1", "Deployment", replaced_on=_SELECTOR),
        Type("batch/v1", "Job", replaced_on=("spec.completions", "spec.parallelism", *_SELECTOR, "spec.template")),
        Type("batch/v1", "CronJob"),
        Type("policy/v1", "PodDisruptionBudget"),
        Type("networking.k8s.io/v1", "NetworkPolicy"),
        Type(_RBAC, "Role"),
        Type(_RBAC, "RoleBinding", replaced_on=("roleRef",)),
        Type(_RBAC, "ClusterRole", namespaced=False),
        Type(_RBAC, "ClusterRoleBinding", namespaced=False, replaced_on=("roleRef",)),
    )
}


class UnknownType(Exception):
    """Neither the stand-in nor, perhaps, the real provider has such a resource."""


def of_urn(urn: str) -> Type:
    """Raises UnknownType."""
    token = urn.split("::")[2].split("$")[-1]
    if token not in TYPES:
        raise UnknownType(f"the stand-in for the kubernetes provider has no resource type {token}")
    return TYPES[token]


def replaced_on(known: Type, manifest: Manifest, *, secret_mutable: bool, config_map_mutable: bool) -> tuple[str, ...]:
    """All paths a change of which replaces this object. Secrets and ConfigMaps too for new data, unless not asked."""
    identity = ("metadata.name", "metadata.namespace")
    immutable = manifest.get("immutable") is True
    if known.kind == "Secret" and (not secret_mutable or immutable):
        return (*identity, "type", "stringData", "data")
    if known.kind == "ConfigMap" and (not config_map_mutable or immutable):
        return (*identity, "binaryData", "data")
    return (*identity, *known.replaced_on)
