"""The image that models' images are built on: found in its registry, described, and kept by digest."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from ...errors import InfrastructureFailed
from .. import files
from ..uv_tool import OnLog
from . import blobs, oci, progress, references
from .contents import Contents, inspect
from .oci import Descriptor, Layer
from .references import Reference
from .registry import Repository

PLACEHOLDER: Final = "{python}"
"""In the name of a base image: becomes the model's Python, as in `3.11`."""

FRESH_SECONDS: Final = 600.0
"""How long a tag means the same image unasked."""

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for in an image that does not say it."""


@dataclass(frozen=True)
class Base:
    """One image for one platform. `reference`: by digest, so that the same one is found again; `config`: its own."""

    reference: Reference
    platform: str
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]
    contents: Contents


def resolve(name: str, platform: str, cache_dir: Path, on_log: OnLog, python: str = "") -> Base:
    """The image with this name. `platform`: as in `linux/amd64`; `python`: replaces `{python}` in the name.

    Asks the registry for a tag at most every ten minutes and for a digest once; while the registry is out of reach, a
    tag means what it meant before. Raises InfrastructureFailed, `reason` as in `registry.Repository`, or
    `UnfitBaseImage` where models cannot run on it.
    """
    wanted = references.parse(name.replace(PLACEHOLDER, python))
    with Repository(wanted.registry, wanted.repository) as source:
        digest = _digest(wanted, platform, source, cache_dir, on_log)
        pinned = replace(wanted, tag=None, digest=digest)
        try:
            return _described(pinned, platform, source, cache_dir, on_log)
        except InfrastructureFailed as error:
            if error.reason != "UnfitBaseImage":
                raise
            raise InfrastructureFailed(
                f"The base image {wanted} cannot be used: {error.message} Set ASGARD_BASE_IMAGE to one like the "
                "official Python images on Debian.",
                reason=error.reason,
            ) from None


def folder(cache_dir: Path, reference: Reference) -> Path:
    """Of what is known of a base image, see `contents`."""
    assert reference.digest is not None
    return blobs.folder(cache_dir) / "bases" / reference.digest.rpartition(":")[2]


def _digest(wanted: Reference, platform: str, source: Repository, cache_dir: Path, on_log: OnLog) -> str:
    """Of the manifest for this platform."""
    if wanted.digest is not None:
        return _for_platform(wanted.digest, platform, source, cache_dir)
    key = hashlib.sha256(f"{wanted} {platform}".encode()).hexdigest()
    remembered = blobs.folder(cache_dir) / "tags" / key
    if remembered.exists() and 0 <= time.time() - remembered.stat().st_mtime < FRESH_SECONDS:
        return remembered.read_text()
    try:
        assert wanted.tag is not None
        tagged = source.digest(wanted.tag)
        if tagged is None:
            raise InfrastructureFailed(
                f"There is no image {wanted}. Correct ASGARD_BASE_IMAGE.", reason="RepositoryUnknown"
            )
        digest = _for_platform(tagged, platform, source, cache_dir)
    except InfrastructureFailed as error:
        if error.reason != "RegistryUnavailable" or not remembered.exists():
            raise
        on_log(f"{error.message} The base image {wanted} found earlier is used.")
        return remembered.read_text()
    remembered.parent.mkdir(parents=True, exist_ok=True)
    files.replace(remembered, digest)
    return digest


def _for_platform(digest: str, platform: str, source: Repository, cache_dir: Path) -> str:
    """The digest of a manifest, or of the one for the platform in an index."""
    document = json.loads(_manifest(digest, source, cache_dir))
    if "manifests" not in document:
        return digest
    system, architecture = platform.split("/")
    for entry in document["manifests"]:
        about = entry.get("platform") or {}
        if (about.get("os"), about.get("architecture")) == (system, architecture):
            return str(entry["digest"])
    raise InfrastructureFailed(
        f"{source.registry}/{source.name}@{digest} has no image for {platform}. Correct ASGARD_BASE_IMAGE or "
        "ASGARD_IMAGE_PLATFORM.",
        reason="UnfitBaseImage",
    )


def _described(pinned: Reference, platform: str, source: Repository, cache_dir: Path, on_log: OnLog) -> Base:
    assert pinned.digest is not None
    manifest = json.loads(_manifest(pinned.digest, source, cache_dir))
    about = oci.descriptor_from(manifest["config"])
    config = json.loads(source.download(about, cache_dir, lambda _: None).read_bytes())
    if f"{config['os']}/{config['architecture']}" != platform:
        raise InfrastructureFailed(f"It is for {config['os']}/{config['architecture']}.", reason="UnfitBaseImage")
    descriptors = [oci.descriptor_from(layer) for layer in manifest["layers"]]
    layers = tuple(
        Layer(descriptor, diff_id, "base")
        for descriptor, diff_id in zip(descriptors, config["rootfs"]["diff_ids"], strict=True)
    )
    variables = dict(entry.partition("=")[::2] for entry in (config.get("config") or {}).get("Env") or ())
    kept = folder(cache_dir, pinned)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{kept}.lock"):
        files = [] if (kept / "contents.json").exists() else _fetch(descriptors, source, cache_dir, on_log)
        contents = inspect(files, platform, variables.get("PATH", _PATH).split(":"), kept)
    return Base(pinned, platform, config, layers, contents)


def _fetch(layers: list[Descriptor], source: Repository, cache_dir: Path, on_log: OnLog) -> list[Path]:
    total = sum(layer.size for layer in layers if not blobs.path(cache_dir, layer.digest).exists())
    count = progress.counter("Fetching the base image", total, on_log)
    return [source.download(layer, cache_dir, count) for layer in layers]


def _manifest(digest: str, source: Repository, cache_dir: Path) -> bytes:
    path = blobs.path(cache_dir, Descriptor(oci.MANIFEST, digest, 0).digest)
    if not blobs.has(cache_dir, digest):
        blobs.add(cache_dir, source.manifest(digest)[0])
    return path.read_bytes()
