"""What the harness takes from Debian: installed where it is missing, with none of its services started."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock

from .model import HarnessError
from .processes import OnLog, run

CNI_BIN: Final = Path("/usr/lib/cni")

NEEDED: Final = {
    "etcd-server": "etcd",
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": str(CNI_BIN / "bridge"),
    "docker-registry": "docker-registry",
    "debootstrap": "debootstrap",
    "iproute2": "ip",
    "mount": "mount",
    "git": "git",
    "gcc": "gcc",
    "libc6-dev": "/usr/include/stdlib.h",
    "ca-certificates": "/etc/ssl/certs/ca-certificates.crt",
    "libdevmapper1.02.1": "/usr/lib/*/libdevmapper.so.1.02.1",
}
"""Debian package, and the command or pattern of files it is there for. One that comes from elsewhere does as well."""

_LOCK: Final = Path("/run/lock/asgard-test-cluster-packages.lock")
_POLICY: Final = Path("/usr/sbin/policy-rc.d")
_INSTALL_SECONDS: Final = 1200
_QUIET: Final = {"DEBIAN_FRONTEND": "noninteractive"}
_PATIENT: Final = ("-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=5")


def check() -> None:
    """Raises HarnessError that names the packages that are missing, where they cannot be installed."""
    if (packages := missing()) and (shutil.which("apt-get") is None or os.geteuid() != 0):
        raise HarnessError(f"The cluster harness needs these Debian packages: {' '.join(packages)}.")


def ensure(on_log: OnLog) -> None:
    """Install what is missing. Raises HarnessError that names it where that cannot be done."""
    check()
    if not missing():
        return
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(_LOCK), _no_services_started():
        if packages := missing():
            _update(on_log)
            _apt(["install", "--yes", "--no-install-recommends", *packages], f"Installing {' '.join(packages)}", on_log)
    if absent := missing():
        raise HarnessError(f"Installed, and yet not there: {' '.join(NEEDED[package] for package in absent)}.")


def dockerd(cache: Path, on_log: OnLog) -> Path:
    """Docker's daemon, taken out of its package once: installed, it would start and change the machine's network."""
    folder = cache / "docker.io"
    program = folder / "usr" / "sbin" / "dockerd"
    with FileLock(f"{folder}.lock"):
        if not program.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _update(on_log)
            _apt(["download", "docker.io"], "Fetching docker.io", on_log, folder)
            (package,) = folder.glob("docker.io_*.deb")
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
            package.unlink()
    return program


def _update(on_log: OnLog) -> None:
    """What is known of packages may be old, or, in an image, nothing; one source that fails does not spoil the rest."""
    try:
        _apt(["update"], "Updating Debian's package lists", on_log)
    except HarnessError as error:
        on_log(str(error))


def _apt(arguments: list[str], what: str, on_log: OnLog, directory: Path | None = None) -> None:
    run(
        ["apt-get", *_PATIENT, *arguments],
        what=what,
        on_log=on_log,
        timeout_seconds=_INSTALL_SECONDS,
        directory=directory,
        environment=_QUIET,
    )


def missing() -> list[str]:
    """Packages whose command or file is not on this machine."""
    return [package for package, wanted in NEEDED.items() if not _is_there(wanted)]


def _is_there(wanted: str) -> bool:
    return shutil.which(wanted) is not None or any(Path("/").glob(wanted.removeprefix("/")))


@contextmanager
def _no_services_started() -> Iterator[None]:
    """Debian asks this script before a package's service is started; the harness starts its own, on its own ports."""
    if _POLICY.exists():  # As in containers, where it says the same.
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
