"""A release made ready on this machine: its bundle's local copy and its environment."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..errors import InfrastructureFailed
from ..settings import Settings
from ..stacks.provider.local_server import Materialized, bundle_path
from . import artifacts, bundle, environments
from .tracking import Tracking


def materialize(
    settings: Settings, tracking: Tracking, model: str, release: dict[str, Any], on_log: Callable[[str], None]
) -> Materialized:
    """The release's bundle, fetched from MLflow unless it is here, and the interpreter of its environment."""
    folder = bundle_path(settings.data_dir, model, release["digest"])
    if not folder.exists():
        on_log(f"Fetching the bundle of version {release['version']} from MLflow")
        _fetch(tracking, release, folder)
    lock = environments.read(folder / "environment")
    return Materialized(bundle=folder, python=environments.ensure(lock, settings, on_log).python)


def _fetch(tracking: Tracking, release: dict[str, Any], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{uuid4().hex}"
    try:
        artifacts.download(tracking, release["bundle"], temporary)
        found = bundle.digest(temporary)
        if found != release["digest"]:
            raise InfrastructureFailed(
                f"The bundle {release['bundle']} has the digest {found}, the release says {release['digest']}: "
                "it was changed in MLflow. Deploy again."
            )
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
