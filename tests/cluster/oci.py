"""One-layer images, as an archive or pushed to a registry over plain HTTP.

Formats: https://github.com/opencontainers/image-spec, https://github.com/opencontainers/distribution-spec
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from isal import igzip

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Image:
    """`manifest` and `config`: JSON; `layer`: gzip of a tar."""

    manifest: bytes
    config: bytes
    layer: bytes


def image(layer: Path | bytes, command: Sequence[str]) -> Image:
    """Of one uncompressed tar, for Linux on AMD64."""
    tar = layer if isinstance(layer, bytes) else layer.read_bytes()
    blob = igzip.compress(tar, compresslevel=1, mtime=0)
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": list(command), "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(tar)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [_descriptor(_LAYER, blob)],
        }
    )
    return Image(manifest, config, blob)


def archive(image: Image, name: str) -> bytes:
    """What `ctr images import` reads."""
    index = {
        "schemaVersion": 2,
        "manifests": [
            {**_descriptor(MANIFEST, image.manifest), "annotations": {"io.containerd.image.name": name}},
        ],
    }
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    for blob in (image.manifest, image.config, image.layer):
        files[f"blobs/{digest(blob).replace(':', '/')}"] = blob
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return output.getvalue()


def push(image: Image, registry: str, repository: str, tag: str, auth: tuple[str, str] | None = None) -> str:
    """Returns the reference by tag. Raises httpx.HTTPStatusError."""
    with httpx.Client(base_url=f"http://{registry}/v2/{repository}/", timeout=60, trust_env=False, auth=auth) as client:
        for blob in (image.config, image.layer):
            begun = client.post("blobs/uploads/").raise_for_status()
            client.put(
                begun.headers["Location"],
                params={**httpx.URL(begun.headers["Location"]).params, "digest": digest(blob)},
                headers={"Content-Type": "application/octet-stream"},
                content=blob,
            ).raise_for_status()
        client.put(f"manifests/{tag}", headers={"Content-Type": MANIFEST}, content=image.manifest).raise_for_status()
    return f"{registry}/{repository}:{tag}"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}
