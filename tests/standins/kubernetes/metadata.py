"""What annotations, names and ids say to the provider."""

import secrets
from typing import Any, Final

from pulumi.runtime.proto import provider_pb2

from .types import Manifest
from .values import UNKNOWN

AUTONAMED: Final = "pulumi.com/autonamed"
SKIP_AWAIT: Final = "pulumi.com/skipAwait"
WAIT_FOR: Final = "pulumi.com/waitFor"
TIMEOUT_SECONDS: Final = "pulumi.com/timeoutSeconds"
PATCH_FORCE: Final = "pulumi.com/patchForce"
PATCH_FIELD_MANAGER: Final = "pulumi.com/patchFieldManager"
DELETION_PROPAGATION: Final = "pulumi.com/deletionPropagationPolicy"

_DEFAULT_SECONDS: Final = 600.0
_SKIP_ON_DELETE: Final = ("Namespace", "Deployment", "Job")
_READ_ONLY: Final = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
)


class NamingRefused(Exception):
    """The object has no name and may not be given one."""


def name(manifest: Manifest) -> Any:
    """Or UNKNOWN, or an empty string."""
    return _metadata(manifest).get("name") or ""


def namespace(manifest: Manifest) -> str:
    found = _metadata(manifest).get("namespace")
    return found if isinstance(found, str) else ""


def annotation(manifest: Manifest, key: str) -> str:
    annotations = _metadata(manifest).get("annotations")
    value = annotations.get(key) if isinstance(annotations, dict) else None
    return value if isinstance(value, str) else ""


def is_true(manifest: Manifest, key: str) -> bool:
    return annotation(manifest, key) == "true"


def skips_await(manifest: Manifest) -> bool:
    return is_true(manifest, SKIP_AWAIT)


def skips_await_on_delete(manifest: Manifest) -> bool:
    return skips_await(manifest) and manifest.get("kind") in _SKIP_ON_DELETE


def timeout_seconds(custom: float, manifest: Manifest) -> float:
    """`custom`: of the resource's options, 0 for none; then the annotation; then ten minutes."""
    if custom:
        return custom
    text = annotation(manifest, TIMEOUT_SECONDS)
    return float(text) if text.isdecimal() else _DEFAULT_SECONDS


def propagation(manifest: Manifest) -> str:
    policy = annotation(manifest, DELETION_PROPAGATION).lower()
    return {"orphan": "Orphan", "background": "Background"}.get(policy, "Foreground")


def adopt_name(new: Manifest, old: Manifest) -> None:
    """Keep the name that an unnamed object was given before."""
    if not name(new) and is_true(old, AUTONAMED):
        _give_name(new, name(old))


def assign_name(new: Manifest, urn: str, autonaming: provider_pb2.CheckRequest.AutonamingOptions | None) -> None:
    """Name an unnamed object after its resource, as the engine wishes. Raises NamingRefused."""
    if name(new):
        return
    mode = provider_pb2.CheckRequest.AutonamingOptions
    if autonaming is not None and autonaming.mode == mode.DISABLE:
        raise NamingRefused("autonaming is disabled, resource requires the .metadata.name field to be set")
    proposed = autonaming.proposed_name if autonaming is not None else ""
    _give_name(new, proposed or f"{urn.rpartition('::')[2]}-{secrets.token_hex(4)}")


def without_read_only(manifest: Manifest) -> Manifest:
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict):
        return manifest
    return {**manifest, "metadata": {key: value for key, value in metadata.items() if key not in _READ_ONLY}}


def object_id(manifest: Manifest) -> str:
    """`namespace/name`, or the name alone."""
    return f"{namespace(manifest)}/{name(manifest)}" if namespace(manifest) else str(name(manifest))


def parsed_id(text: str) -> tuple[str, str]:
    """Namespace, empty where there is none, and name."""
    first, separator, second = text.partition("/")
    return (first, second) if separator else ("", first)


def owned_by(manifest: Manifest, owner: Manifest) -> bool:
    uid = owner["metadata"]["uid"]
    return any(reference["uid"] == uid for reference in _metadata(manifest).get("ownerReferences", []))


def _metadata(manifest: Manifest) -> Manifest:
    metadata = manifest.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _give_name(manifest: Manifest, given: str) -> None:
    """Nothing where a preview does not know the metadata."""
    if manifest.get("metadata") is UNKNOWN:
        return
    metadata = manifest.setdefault("metadata", {})
    metadata["name"] = given
    if metadata.get("annotations") is not UNKNOWN:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), AUTONAMED: "true"}
