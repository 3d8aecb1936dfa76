"""A registry with a base image in it, and what to build on that."""

import gzip
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from isal import igzip

from asgard.platform.environments import Lock
from asgard.platform.images import base as bases
from asgard.platform.images import blobs, oci
from asgard.platform.images.base import Base
from asgard.platform.images.build import Image, build
from asgard.platform.images.registry import Repository

from ...cluster.harness import Prepared
from . import bundles, registries

BASE = "test/python"
SECONDS = 300.0


def ignore(_: object) -> None:
    return


@pytest.fixture(autouse=True)
def _no_docker_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the caller's credentials nor the caller's daemon."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)


@pytest.fixture(scope="session")
def large() -> Iterator[Path]:
    """Folder of what is too large to be left for the next runs."""
    with tempfile.TemporaryDirectory(prefix="asgard-images-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def registry(prepared: Prepared, large: Path) -> Iterator[str]:
    """A registry that asks for no credentials: `127.0.0.1:PORT`."""
    with registries.running(large / "registry") as host:
        yield host


@pytest.fixture(scope="session")
def base_archive(prepared: Prepared, large: Path) -> Path:
    """The one layer of a small Debian with Python 3.11, compressed."""
    archive = large / "base.tar.gz"
    archive.write_bytes(igzip.compress(prepared.base.read_bytes(), 1, mtime=0))
    return archive


@pytest.fixture(scope="session")
def push_base(base_archive: Path, large: Path) -> Callable[[str], str]:
    """Puts the base image into a registry and gives its name there, by tag."""
    content = base_archive.read_bytes()
    layer = oci.Descriptor(oci.LAYER_GZIP, oci.digest_of(content), len(content))
    about = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"], "Cmd": ["python3"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(gzip.decompress(content)).hexdigest()}"]},
    }
    written = json.dumps(about).encode()

    def push(host: str, name: str = BASE) -> str:
        digest = blobs.add(large, written)
        config = oci.Descriptor(oci.CONFIG, digest, len(written))
        with Repository(host, name, push=True) as repository:
            repository.upload(layer, lambda: base_archive, ignore)
            repository.upload(config, lambda: blobs.path(large, digest), ignore)
            repository.put_manifest(bundles.PYTHON, oci.manifest(config, [layer], {}), oci.MANIFEST)
        return f"{host}/{name}:{bundles.PYTHON}"

    return push


@pytest.fixture(scope="session")
def base_name(registry: str, push_base: Callable[[str], str]) -> str:
    """The base image in `registry`."""
    return push_base(registry)


@pytest.fixture(scope="session")
def cache(large: Path) -> Path:
    """A cache folder that most tests share."""
    return large / "cache"


@pytest.fixture(scope="session")
def base(base_name: str, cache: Path) -> Base:
    return bases.resolve(base_name, "linux/amd64", cache, ignore)


@pytest.fixture(scope="session")
def small_lock(test_cache: Path) -> Lock:
    return bundles.lock(test_cache, bundles.SMALL)


@pytest.fixture
def small_image(base: Base, cache: Path, small_lock: Lock, tmp_path: Path) -> Callable[..., Image]:
    """An image with a small environment: `small_image(name="iris", number=1, content="1")`."""

    def make(name: str = "iris", number: int = 1, content: str = "1") -> Image:
        folder = tmp_path / f"{name}-{number}-{content[:8]}"
        bundles.plain(folder, small_lock, name=name, number=number, content=content)
        return build(folder, base, cache, ignore, SECONDS)

    return make
