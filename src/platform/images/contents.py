"""What a base image holds, read from its layers: its Pythons and its C library."""

import json
import os
import platform
import posixpath
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ...errors import InfrastructureFailed

MACHINES: Final = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
"""The machines that images can be for, by platform."""

TELL_RELEASE: Final = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
"""A program that prints its Python's release, as in `3.11.9`."""

_PYTHON: Final = re.compile(r"(?:.*/)?bin/python(3\.\d+)")
_LIBC: Final = re.compile(r"libc(?:\.so\.6|-2\.\d+\.so)")
_LIBC_VERSION: Final = re.compile(rb"GNU C Library [^\n]{0,200}release version (\d+)\.(\d+)")
_LIBRARY: Final = re.compile(r"(?:usr/)?(?:local/)?lib(?:64)?/(?:[^/]+-linux-gnu/)?[^/]+\.so(?:\.[\w.]+)?")
_STDLIB: Final = re.compile(r"(?:.*/)?lib/python3\.\d+/(?!(?:site-packages|dist-packages|test|idlelib|ensurepip)/).+")
_LOADER: Final = re.compile(r"ld-linux[\w-]*\.so\.\d")


@dataclass(frozen=True)
class Python:
    """`path`: in the image. `release`: as in `3.11.9`, where it can run on this machine; None: it cannot."""

    path: str
    release: str | None


@dataclass(frozen=True)
class Contents:
    """`pythons`: by version, as in `3.11`. `glibc`: minor version of GNU libc 2."""

    pythons: Mapping[str, Python]
    glibc: int


def inspect(layers: Sequence[Path], platform_: str, search: Sequence[str], folder: Path) -> Contents:
    """What the layers hold, kept in `folder`, with the files that its Pythons need. `search`: the image's PATH.

    Raises InfrastructureFailed for an image that is no base for models.
    """
    record = folder / "contents.json"
    if record.exists():
        known = json.loads(record.read_text())
        return Contents({version: Python(**python) for version, python in known["pythons"].items()}, known["glibc"])
    shutil.rmtree(folder, ignore_errors=True)
    root = folder / "root"
    root.mkdir(parents=True)
    found, glibc = _scan(layers, root)
    pythons: dict[str, Python] = {}
    for directory in search:
        for name in sorted(found):
            version = name.rpartition("python")[2]
            if posixpath.dirname(f"/{name}") == directory.rstrip("/") and version not in pythons:
                pythons[version] = Python(f"/{name}", _release(root, f"/{name}", platform_))
    if not pythons:
        raise InfrastructureFailed("It has no python3.X on its PATH.", reason="UnfitBaseImage")
    if glibc is None:
        raise InfrastructureFailed("It has no GNU C library, which wheels need.", reason="UnfitBaseImage")
    contents = Contents(pythons, glibc)
    record.write_text(json.dumps(asdict(contents)))
    return contents


def command(folder: Path, python: str) -> tuple[tuple[str, ...], dict[str, str]] | None:
    """How to run the image's Python at this path here, with its own C library, and in which environment; None: cannot.

    `folder`: that of `inspect`.
    """
    root = (folder / "root").resolve()
    executable = (root / python.lstrip("/")).resolve()
    libraries = sorted({str(path.parent) for path in root.rglob("*.so*") if _LIBRARY.fullmatch(_name(path, root))})
    loader = next((path for path in root.rglob("ld-linux*") if _LOADER.fullmatch(path.name) and path.is_file()), None)
    if loader is None or not executable.is_file() or not executable.is_relative_to(root):
        return None
    run = (str(loader), "--library-path", os.pathsep.join(libraries), str(executable))
    return run, {"PYTHONHOME": str(executable.parents[1])}


def _release(root: Path, python: str, platform_: str) -> str | None:
    if sys.platform != "linux" or platform.machine() != MACHINES[platform_]:
        return None
    found = command(root.parent, python)
    if found is None:
        return None
    run, environment = found
    try:
        done = subprocess.run(
            [*run, "-S", "-c", TELL_RELEASE], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _scan(layers: Sequence[Path], root: Path) -> tuple[set[str], int | None]:
    """Paths of the Pythons, and glibc's version; what they need to run goes to `root`."""
    pythons: set[str] = set()
    glibc: int | None = None
    for layer in layers:
        try:
            with layer.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
                glibc = _scan_layer(tar, pythons, root) or glibc
        except tarfile.ReadError:
            raise InfrastructureFailed(
                "A layer of it cannot be read here; gzip is the compression that can.", reason="UnfitBaseImage"
            ) from None
    return pythons, glibc


def _scan_layer(tar: tarfile.TarFile, pythons: set[str], root: Path) -> int | None:
    glibc: int | None = None
    for member in tar:
        name = posixpath.normpath(f"/{member.name}").lstrip("/")
        directory, last = posixpath.split(name)
        if last.startswith(".wh."):
            gone = directory if last == ".wh..wh..opq" else posixpath.join(directory, last[4:])
            pythons -= {path for path in pythons if f"{path}/".startswith(f"{gone}/")}
            continue
        if _PYTHON.fullmatch(name):
            pythons.add(name)
        if any(wanted.fullmatch(name) for wanted in (_PYTHON, _LIBRARY, _STDLIB)):
            _extract(tar, member, root / name, root)
        if _LIBC.fullmatch(last) and member.isreg() and (root / name).exists():
            version = _LIBC_VERSION.search((root / name).read_bytes())
            glibc = int(version[2]) if version else glibc
    return glibc


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, root: Path) -> None:
    if member.isdir():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        return  # below a link that leads nowhere
    if not path.parent.resolve().is_relative_to(root.resolve()):
        return  # below a link that leads out of the image
    path.unlink(missing_ok=True)
    if member.issym():
        # An absolute target means the image's root, not this machine's.
        target = root / member.linkname.lstrip("/") if member.linkname.startswith("/") else None
        path.symlink_to(member.linkname if target is None else os.path.relpath(target, path.parent))
    elif member.islnk():
        source = root / posixpath.normpath(f"/{member.linkname}").lstrip("/")
        if source.is_file():
            path.hardlink_to(source)
    elif content := tar.extractfile(member):
        with path.open("wb") as file:
            shutil.copyfileobj(content, file)
        path.chmod(0o755 if member.mode & 0o100 else 0o644)


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
