"""The environment layer: a lock's packages, installed here for the image's platform, and their byte code."""

import hashlib
import json
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final

from ...errors import EnvironmentUnavailable, RequirementsConflict
from .. import conflicts, pythons, uv_tool
from ..environments import Lock
from ..uv_tool import OnLog, UvFailed, UvTimeout
from . import bytecode, layers, layout, wheels
from .base import Base
from .oci import Layer

RECIPE: Final = 1
"""Number of the way in which a layer is made. A change that gives other bytes raises it."""

_NO_WHEEL: Final = "has no binary distribution"


def layer(lock: Lock, base: Base, cache_dir: Path, on_log: OnLog, timeout_seconds: float) -> Layer:
    """The layer, made unless it is in the cache. `timeout_seconds`: for uv.

    Needs no network where uv has the wheels. Raises RequirementsConflict, EnvironmentUnavailable, InfrastructureFailed.
    """
    compiler = bytecode.compiler(base, lock.python, cache_dir, on_log)
    platform = wheels.uv_platform(base)
    parts = [RECIPE, lock.digest, platform, compiler.release, version("isal")]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def make() -> Layer:
        started = time.monotonic()
        on_log(f"Making the environment layer {key[:12]}")
        where = layout.site_packages(lock.python)
        with layers.scratch(cache_dir, key) as folder:
            packages = _install(lock, platform, folder, on_log, timeout_seconds)
            _strip(packages)
            on_log("Compiling its byte code")
            bytecode.compile_tree(compiler, packages, f"/{where}")
            on_log("Packing it")
            made = layers.write(layers.tree(packages, where), "environment", cache_dir)
        on_log(f"Made the environment layer in {time.monotonic() - started:.1f} s")
        return made

    return layers.cached(key, "environment", cache_dir, make)


def _install(lock: Lock, platform: str, folder: Path, on_log: OnLog, timeout_seconds: float) -> Path:
    interpreter = pythons.needed(lock.python, "The image needs", on_log)
    listed, packages = folder / "pylock.toml", folder / "packages"
    listed.write_text(wheels.export(lock))
    try:
        uv_tool.run(
            "pip", "install", f"--requirements={listed}", f"--target={packages}", f"--python-platform={platform}",
            "--only-binary=:all:", f"--python={interpreter}", "--no-python-downloads", "--preview-features=pylock",
            timeout_seconds=timeout_seconds, on_log=lambda line: None if line.startswith(" + ") else on_log(line),
        )  # fmt: skip
    except UvFailed as failure:
        detail = conflicts.clean(failure.text).rstrip(".")
        if _NO_WHEEL in failure.text and not conflicts.is_unreachable(failure.text):
            raise RequirementsConflict(
                f"A package has no wheel for the image's platform: {detail}. Pin a version that has one.",
                stage="environment",
            ) from None
        limit = "; ASGARD_ENVIRONMENT_TIMEOUT_SECONDS sets the limit" if isinstance(failure, UvTimeout) else ""
        raise EnvironmentUnavailable(
            f"The image's environment could not be installed: {detail}{limit}. Try again later.",
            stage="environment",
            log_tail=failure.text.splitlines()[-20:],
        ) from None
    return packages


def _strip(packages: Path) -> None:
    """Remove what tells of this machine: scripts start with the path of its Python. Programs are run with `-m`."""
    shutil.rmtree(packages / "bin", ignore_errors=True)
    (packages / ".lock").unlink(missing_ok=True)
    for about in sorted(packages.glob("*.dist-info")):
        (about / "direct_url.json").unlink(missing_ok=True)
        record = about / "RECORD"
        if record.exists():
            rows = record.read_text().splitlines(keepends=True)
            kept = [row for row in rows if not row.startswith("bin/") and "/direct_url.json," not in row]
            record.unlink()  # it may be a link into uv's cache
            record.write_text("".join(kept))
