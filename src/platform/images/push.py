"""An image into a repository: what is missing is uploaded, what another repository of the registry has is mounted."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from ...errors import InfrastructureFailed
from ..uv_tool import OnLog
from . import blobs, oci, progress
from .build import Image
from .oci import Descriptor
from .registry import Repository

_AT_ONCE: Final = 4

Fate = Literal["present", "mounted", "uploaded"]


@dataclass(frozen=True)
class Pushed:
    """What became of each part of an image, from `base` to `model` and `config`; empty where the tag was there."""

    parts: Sequence[tuple[str, Fate]]


def push(image: Image, repository: Repository, tag: str, cache_dir: Path, on_log: OnLog) -> Pushed:
    """Put the image there under the tag. `repository`: opened to push; must exist where the registry makes none.

    A tag that has this image is success; one that has another is InfrastructureFailed with the reason `TagTaken`.
    Other reasons are those of `Repository`.
    """
    if _is_there(image, repository, tag):
        return Pushed([])
    parts = [(layer.title, layer.descriptor) for layer in (*image.base.layers, *image.layers)]
    parts.append(("config", image.config))
    with ExitStack() as opened, ThreadPoolExecutor(_AT_ONCE) as pool:
        origin = image.base.reference
        source = opened.enter_context(Repository(origin.registry, origin.repository))

        def put(part: tuple[str, Descriptor]) -> Fate:
            return _put(*part, image, repository, source, cache_dir, on_log)

        fates = list(pool.map(put, dict.fromkeys(parts)))
    try:
        repository.put_manifest(tag, image.manifest, oci.MANIFEST)
    except InfrastructureFailed:
        # Another process may have been quicker, and a tag that may not change refuses even what it has.
        if not _is_there(image, repository, tag):
            raise
    return Pushed(list(zip((title for title, _ in dict.fromkeys(parts)), fates, strict=True)))


def _is_there(image: Image, repository: Repository, tag: str) -> bool:
    found = repository.digest(tag)
    if found is not None and found != image.digest:
        raise InfrastructureFailed(
            f"{repository.registry}/{repository.name}:{tag} is another image, {found}. It was not made from this "
            "version; remove it, or deploy again.",
            reason="TagTaken",
        )
    return found is not None


def _put(
    title: str,
    blob: Descriptor,
    image: Image,
    repository: Repository,
    source: Repository,
    cache_dir: Path,
    on_log: OnLog,
) -> Fate:
    if repository.has_blob(blob.digest):
        return "present"
    from_base = title == "base" and source.registry == repository.registry
    shared_by = source.name if from_base else _holder(cache_dir, repository, blob)

    def content() -> Path:
        if title == "base":
            return source.download(blob, cache_dir, progress.counter("Fetching a base layer", blob.size, on_log))
        return blobs.path(cache_dir, blob.digest)

    count = progress.counter(f"Uploading the {title} of {image.name}", blob.size, on_log)
    fate = repository.upload(blob, content, count, mount_from=shared_by)
    _remember(cache_dir, repository, blob)
    return fate


def _record(cache_dir: Path, repository: Repository, blob: Descriptor) -> Path:
    """Where it is noted which repository of this registry got a blob last."""
    return blobs.folder(cache_dir) / "pushed" / quote(repository.registry, safe="") / f"{blob.digest[7:]}.json"


def _holder(cache_dir: Path, repository: Repository, blob: Descriptor) -> str | None:
    try:
        name = json.loads(_record(cache_dir, repository, blob).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return str(name) if name != repository.name else None


def _remember(cache_dir: Path, repository: Repository, blob: Descriptor) -> None:
    record = _record(cache_dir, repository, blob)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(repository.name))
