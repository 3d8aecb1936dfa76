"""Which wheels an image can use, and whether a lock has them."""

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from ...errors import RequirementsConflict
from .. import syntax, uv_tool
from ..environments import Lock
from .base import Base
from .contents import MACHINES

_LEVELS: Final[tuple[int, ...]] = (17, 28, *range(31, 41))
"""Minor versions of glibc 2 that uv knows as `{machine}-manylinux_2_{n}`."""

_LEGACY: Final = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
"""Older names of some levels (PEP 600)."""

_OLDEST: Final = {"x86_64": 5, "aarch64": 17}
_EXPORT_SECONDS: Final = 60.0


def uv_platform(base: Base) -> str:
    """The image's platform as uv names it, no newer than its glibc."""
    return f"{MACHINES[base.platform]}-manylinux_2_{_level(base)}"


def export(lock: Lock) -> str:
    """The lock as a pylock.toml (PEP 751): exact files by address and hash, to be installed with no index to ask."""
    return uv_tool.run(
        "export", "--frozen", "--quiet", "--preview-features=pylock", "--no-emit-project", "--no-header",
        "--format=pylock.toml", f"--project={lock.folder}", "--no-python-downloads",
        timeout_seconds=_EXPORT_SECONDS, on_log=lambda _: None,
    )  # fmt: skip


def check(lock: Lock, base: Base) -> None:
    """Raise RequirementsConflict where a package of the lock has no wheel that the image can use. Asks nobody."""
    document = tomllib.loads(export(lock))
    environment = _environment(lock.python, MACHINES[base.platform])
    where = f"{base.platform} with Python {lock.python} and glibc 2.{base.contents.glibc}"
    if not any(syntax.marker(marker).evaluate(environment) for marker in document["environments"]):
        raise RequirementsConflict(
            f"The requirements were locked for another platform than the image's, {where}. Deploy again.",
            stage="environment",
        )
    tags = frozenset(_tags(lock.python, MACHINES[base.platform], _level(base)))
    missing = [
        f"{package['name']} {package['version']}"
        for package in document["packages"]
        if "marker" not in package or syntax.marker(package["marker"]).evaluate(environment)
        if not any(_fits(wheel, tags) for wheel in package.get("wheels", ()))
    ]
    if missing:
        raise RequirementsConflict(
            f"No wheel for the image's platform, {where}: {', '.join(missing)}. Pin versions that have one.",
            stage="environment",
        )


def _level(base: Base) -> int:
    return max((level for level in _LEVELS if level <= base.contents.glibc), default=_LEVELS[0])


def _tags(python: str, machine: str, level: int) -> Iterator[Tag]:
    major, minor = map(int, python.split("."))
    platforms = []
    for number in range(level, _OLDEST[machine] - 1, -1):
        platforms.append(f"manylinux_2_{number}_{machine}")
        if number in _LEGACY:
            platforms.append(f"{_LEGACY[number]}_{machine}")
    platforms.append(f"linux_{machine}")
    yield from cpython_tags((major, minor), platforms=platforms)
    yield from compatible_tags((major, minor), f"cp{major}{minor}", platforms)


def _fits(wheel: Mapping[str, Any], tags: frozenset[Tag]) -> bool:
    name = wheel.get("name") or unquote(urlsplit(wheel.get("url") or wheel["path"]).path).rpartition("/")[2]
    try:
        return not tags.isdisjoint(parse_wheel_filename(name)[3])
    except InvalidWheelFilename:
        return False


def _environment(python: str, machine: str) -> dict[str, str]:
    """What markers are compared with (PEP 508)."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
