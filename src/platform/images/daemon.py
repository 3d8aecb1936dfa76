"""An image into a local Docker daemon, for whoever wants to run or look at one by hand."""

import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Final

import docker
from docker.errors import DockerException

from ...errors import InfrastructureFailed
from ..uv_tool import OnLog
from . import blobs, progress
from .build import Image
from .registry import Repository

_SECONDS: Final = 600
"""How long the daemon may say nothing while it takes an image."""


def load(image: Image, name: str, cache_dir: Path, on_log: OnLog) -> str:
    """Have the daemon of `DOCKER_HOST` take the image under a name, `repository:tag`; gives its id there.

    Raises InfrastructureFailed, with the reason `DockerUnavailable` where there is no daemon.
    """
    with tempfile.TemporaryFile(dir=blobs.folder(cache_dir)) as file:
        _archive(image, name, cache_dir, file, on_log)
        file.seek(0)
        try:
            client = docker.from_env(timeout=_SECONDS)
            try:
                (loaded,) = client.images.load(file)
            finally:
                client.close()
        except DockerException as error:
            raise InfrastructureFailed(
                f"The Docker daemon does not take the image: {error}. See that it runs and that DOCKER_HOST names it.",
                reason="DockerUnavailable",
            ) from None
    return str(loaded.id)


def _archive(image: Image, name: str, cache_dir: Path, file: io.IOBase, on_log: OnLog) -> None:
    """As `docker save` writes it (https://docs.docker.com/reference/api/engine/version/v1.43/#tag/Image/operation/ImageLoad)."""
    origin = image.base.reference
    total = sum(layer.descriptor.size for layer in image.base.layers)
    count = progress.counter("Fetching the base image", total, on_log)
    with Repository(origin.registry, origin.repository) as source:
        files = [source.download(layer.descriptor, cache_dir, count) for layer in image.base.layers]
    files += [blobs.path(cache_dir, layer.descriptor.digest) for layer in image.layers]
    config = blobs.path(cache_dir, image.config.digest)
    listed = [{"Config": config.name, "RepoTags": [name], "Layers": [path.name for path in files]}]
    with tarfile.open(fileobj=file, mode="w") as tar:
        for path in dict.fromkeys([config, *files]):
            tar.add(path, path.name)
        content = json.dumps(listed).encode()
        about = tarfile.TarInfo("manifest.json")
        about.size = len(content)
        tar.addfile(about, io.BytesIO(content))
