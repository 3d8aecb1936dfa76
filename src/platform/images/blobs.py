"""Blobs of images in the cache folder, by digest: layers, manifests and configurations."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from .oci import digest_of


def folder(cache_dir: Path) -> Path:
    """Of everything that images keep; `cache_dir`: of all of Asgard."""
    return cache_dir / "images"


def path(cache_dir: Path, digest: str) -> Path:
    """Where the blob is, if it is there: only whole ones are. `digest`: `sha256:` and 64 hexadecimal digits."""
    return folder(cache_dir) / "blobs" / digest.replace(":", "/")


def has(cache_dir: Path, digest: str) -> bool:
    """Whether the blob is there; asking counts as a use of it."""
    try:
        os.utime(path(cache_dir, digest))
    except FileNotFoundError:
        return False
    return True


def prune(cache_dir: Path, before: float) -> list[Path]:
    """Remove the blobs that were last used before that time, and what was not finished; gives them.

    With its manifest goes what is known of a base image (`base.folder`), which is its Pythons.
    """
    unused = [
        file for file in (folder(cache_dir) / "blobs").rglob("*") if file.is_file() and file.stat().st_mtime < before
    ]
    for file in unused:
        file.unlink(missing_ok=True)
    for known in (folder(cache_dir) / "bases").glob("*/"):
        if not path(cache_dir, f"sha256:{known.name}").exists():
            shutil.rmtree(known, ignore_errors=True)
    return unused


def add(cache_dir: Path, content: bytes) -> str:
    """Keep a small one; its digest."""
    digest = digest_of(content)
    if not has(cache_dir, digest):
        with writing(cache_dir) as (file, temporary):
            file.write(content)
            file.flush()
            keep(cache_dir, temporary, digest)
    return digest


@contextmanager
def writing(cache_dir: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A file to write a blob to, and its path for `keep`; it is removed unless that was called."""
    parent = folder(cache_dir) / "blobs"
    parent.mkdir(parents=True, exist_ok=True)
    temporary = parent / f".{uuid4().hex}"
    try:
        with temporary.open("wb") as file:
            yield file, temporary
    finally:
        temporary.unlink(missing_ok=True)


def keep(cache_dir: Path, temporary: Path, digest: str) -> None:
    """Give a whole, flushed file its place."""
    final = path(cache_dir, digest)
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(temporary, final)  # noqa: PTH105 - as atomic as it says
