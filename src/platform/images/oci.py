"""OCI manifests and configurations as plain data.

Formats: https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md, config.md, descriptor.md, annotations.md
and media-types.md beside it. Docker's own, which registries still give: https://distribution.github.io/distribution/spec/manifest-v2-2/
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"

MANIFESTS: Final = (INDEX, DOCKER_INDEX, MANIFEST, DOCKER_MANIFEST)
"""What a client that reads any image accepts."""

_DOCKER_LAYERS: Final = {
    "application/vnd.docker.image.rootfs.diff.tar": LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": LAYER_GZIP,
}
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Descriptor:
    """A blob by its content. `digest`: `sha256:…`; `size`: bytes. Raises ValueError for another kind of digest."""

    media_type: str
    digest: str
    size: int

    def __post_init__(self) -> None:
        # It becomes a file name, and it is a registry that says it.
        if not _DIGEST.fullmatch(self.digest):
            raise ValueError(f"{self.digest!r} is not a SHA-256 digest")

    def to_json(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Layer:
    """`diff_id`: digest of the uncompressed tar. `title`: what it holds, in a word or two."""

    descriptor: Descriptor
    diff_id: str
    title: str


def digest_of(content: bytes) -> str:
    """As `sha256:…`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def canonical(document: Mapping[str, Any]) -> bytes:
    """The one way in which equal documents are written."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def descriptor_from(document: Mapping[str, Any]) -> Descriptor:
    """A descriptor as a manifest has it; Docker's media types of layers become OCI's, their bytes are the same."""
    media_type = document["mediaType"]
    return Descriptor(_DOCKER_LAYERS.get(media_type, media_type), document["digest"], document["size"])


def config(
    base: Mapping[str, Any], layers: Sequence[Layer], run: Mapping[str, Any], labels: Mapping[str, str]
) -> bytes:
    """The configuration of an image on a base. `run`: what the container runs, its `Env` on top of the base's."""
    inherited = base.get("config") or {}
    own = dict(entry.partition("=")[::2] for entry in run.get("Env", ()))
    environment = dict(entry.partition("=")[::2] for entry in inherited.get("Env") or ()) | own
    return canonical(
        {
            **{name: base[name] for name in ("architecture", "os", "variant") if name in base},
            "created": "1970-01-01T00:00:00Z",  # the time of a build is no input
            "config": {
                **run,
                "Env": [f"{name}={value}" for name, value in environment.items()],
                "Labels": {**(inherited.get("Labels") or {}), **labels},
            },
            "history": [*_history(base), *({"created_by": f"asgard: {layer.title}"} for layer in layers)],
            "rootfs": {
                "type": "layers",
                "diff_ids": [*base["rootfs"]["diff_ids"], *(layer.diff_id for layer in layers)],
            },
        }
    )


def _history(base: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The base's, one for each layer where it has none: programs match them by their order."""
    return base.get("history") or [{"created_by": "base"} for _ in base["rootfs"]["diff_ids"]]


def manifest(config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str]) -> bytes:
    """The manifest; its digest is the image's."""
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
            "annotations": dict(annotations),
        }
    )
