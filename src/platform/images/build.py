"""From a bundle to an image. Its digest is known, and the same on every machine, before anything is pushed."""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from ... import naming
from .. import environments
from ..uv_tool import OnLog
from . import blobs, bytecode, environment, layers, layout, oci
from .base import Base
from .layers import Entry, Link
from .oci import Descriptor, Layer

_ANNOTATIONS: Final = "org.opencontainers.image"


@dataclass(frozen=True)
class Image:
    """An image whose blobs are in the cache folder, those of its base apart. `digest`: of its manifest.

    `layers`: environment, server, model; the base's are `base.layers`. `name`: of the model and its version.
    """

    name: str
    base: Base
    layers: tuple[Layer, ...]
    config: Descriptor
    manifest: bytes
    digest: str


def build(bundle: Path, base: Base, cache_dir: Path, on_log: OnLog, timeout_seconds: float) -> Image:
    """The image of a bundle. `timeout_seconds`: for installing its environment, where that is not in the cache.

    Raises RequirementsConflict, EnvironmentUnavailable, InfrastructureFailed.
    """
    about = json.loads((bundle / "bundle.json").read_text())
    lock = environments.read(bundle / "environment")
    own = (
        environment.layer(lock, base, cache_dir, on_log, timeout_seconds),
        _server(bundle, lock.python, base, cache_dir, on_log),
        _model(bundle, cache_dir),
    )
    labels = {
        f"{_ANNOTATIONS}.title": about["model_name"],
        f"{_ANNOTATIONS}.version": about["model_version"],
        f"{_ANNOTATIONS}.base.digest": str(base.reference.digest),
        naming.DEPLOYMENT_ID_ANNOTATION: about["deployment_id"],
        naming.RUN_ID_ANNOTATION: about["run_id"],
    }
    content = oci.config(base.config, own, layout.RUN, labels)
    config = Descriptor(oci.CONFIG, blobs.add(cache_dir, content), len(content))
    manifest = oci.manifest(config, [layer.descriptor for layer in (*base.layers, *own)], labels)
    name = f"{about['model_name']} version {about['model_version']}"
    return Image(name, base, own, config, manifest, oci.digest_of(manifest))


def _server(bundle: Path, python: str, base: Base, cache_dir: Path, on_log: OnLog) -> Layer:
    """The model server, and what makes a virtual environment of the environment layer's packages."""
    compiler = bytecode.compiler(base, python, cache_dir, on_log)
    interpreter = Path(bytecode.path_in(base, python))
    sources = {path.name: path.read_bytes() for path in sorted((bundle / "server" / "asgard_server").glob("*.py"))}
    parts = [
        environment.RECIPE, compiler.release, str(interpreter), version("isal"),
        sorted((name, hashlib.sha256(source).hexdigest()) for name, source in sources.items()),
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def make() -> Layer:
        package = f"{layout.site_packages(python)}/asgard_server"
        with layers.scratch(cache_dir, key) as folder:
            for name, source in sources.items():
                (folder / name).write_bytes(source)
            bytecode.compile_tree(compiler, folder, f"/{package}")
            return layers.write(
                [
                    Entry(f"{layout.ENVIRONMENT}/pyvenv.cfg", _venv(interpreter)),
                    Entry(f"{layout.ENVIRONMENT}/bin/python", Link(str(interpreter))),
                    *layers.tree(folder, package),
                ],
                "server",
                cache_dir,
            )

    return layers.cached(key, "server", cache_dir, make)


def _venv(interpreter: Path) -> bytes:
    """A pyvenv.cfg (https://docs.python.org/3/library/site.html)."""
    return f"home = {interpreter.parent}\ninclude-system-site-packages = false\n".encode()


def _model(bundle: Path, cache_dir: Path) -> Layer:
    return layers.write(
        [
            Entry(f"{layout.BUNDLE}/bundle.json", bundle / "bundle.json"),
            *layers.tree(bundle / "model", f"{layout.BUNDLE}/model"),
            *layers.tree(bundle / "compiled", f"{layout.BUNDLE}/compiled"),
        ],
        "model",
        cache_dir,
    )
