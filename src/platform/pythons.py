"""Which Python interpreters a model may run on, and where they are."""

import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import EnvironmentUnavailable
from . import uv_tool
from .uv_tool import OnLog, UvFailed

SUPPORTED: Final = ("3.13", "3.12", "3.11", "3.10")
"""Newest first."""

DOWNLOAD_SECONDS: Final = 120.0
_PYENV_VERSION: Final = re.compile(r"(\d+\.\d+)\.(\d+)")

_download_failures: dict[str, str] = {}
_download_lock = threading.Lock()


def installed() -> dict[str, Path]:
    """The interpreters of this machine, by supported version; the newest patch release of each.

    pyenv's are looked up in its folder: on PATH it has shims, which name versions that they then refuse to run.
    """
    found = _newest(_pyenv())
    if all(version in found for version in SUPPORTED):
        return found
    return _newest([*_pyenv(), *_known_to_uv(), _own()])


def download(version: str, on_log: OnLog) -> Path | None:
    """Let uv download an interpreter, within a bound; None, said once, where it cannot be had. Not tried twice."""
    with _download_lock:
        if version in _download_failures:
            return None
        on_log(f"Downloading Python {version}")
        try:
            uv_tool.run("python", "install", version, timeout_seconds=DOWNLOAD_SECONDS, on_log=on_log)
            return installed().get(version)
        except UvFailed as failure:
            _download_failures[version] = failure.text
            on_log(f"Python {version} is not on this machine and could not be downloaded; an older one is used")
            return None


def needed(version: str, what: str, on_log: OnLog) -> Path:
    """An interpreter of this machine, else a downloaded one. `what`: as `missing`. Raises EnvironmentUnavailable."""
    interpreter = installed().get(version) or download(version, on_log)
    if interpreter is None:
        raise missing(version, what)
    return interpreter


def missing(versions: str, what: str) -> EnvironmentUnavailable:
    """The error where none can be had. `what` needs it, as in `The environment needs`."""
    return EnvironmentUnavailable(
        f"{what} Python {versions}, which is not on this machine and could not be downloaded. Install it "
        "(`uv python install`), then try again.",
        stage="environment",
    )


def _newest(found: list[tuple[str, int, Path]]) -> dict[str, Path]:
    return {version: path for version, _, path in sorted(found, key=lambda entry: entry[1]) if version in SUPPORTED}


def _pyenv() -> list[tuple[str, int, Path]]:
    return list(_pyenv_versions(Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")))


def _pyenv_versions(root: Path) -> Iterator[tuple[str, int, Path]]:
    for folder in (root / "versions").glob("*"):
        match, path = _PYENV_VERSION.fullmatch(folder.name), folder / "bin" / "python"
        if match and path.exists():
            yield match[1], int(match[2]), path


def _known_to_uv() -> list[tuple[str, int, Path]]:
    try:
        text = uv_tool.run(
            "python", "list", "--only-installed", "--output-format=json", timeout_seconds=60, on_log=lambda _: None
        )
    except UvFailed:
        return []
    return [
        (f"{entry['version_parts']['major']}.{entry['version_parts']['minor']}", entry["version_parts"]["patch"], path)
        for entry in json.loads(text)
        if entry["implementation"] == "cpython" and entry["variant"] == "default"
        if "shims" not in (path := Path(entry["path"])).parts
    ]


def _own() -> tuple[str, int, Path]:
    base = getattr(sys, "_base_executable", sys.executable)
    return f"{sys.version_info.major}.{sys.version_info.minor}", sys.version_info.micro, Path(base)
