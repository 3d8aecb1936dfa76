"""What the harness takes from Debian: installed where it is missing, with none of its services started."""

import os
import shutil
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
    "gcc": "gcc",
    "libc6-dev": "/usr/include/stdlib.h",
}
"""Debian package, and the command or file it is there for. One that comes from elsewhere does as well."""

_LOCK: Final = Path("/run/lock/asgard-test-cluster-packages.lock")
_POLICY: Final = Path("/usr/sbin/policy-rc.d")
_INSTALL_SECONDS: Final = 1200


def ensure(on_log: OnLog) -> None:
    """Install what is missing. Raises HarnessError that names it where that cannot be done."""
    if not missing():
        return
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        raise HarnessError(f"The cluster harness needs these Debian packages: {' '.join(missing())}.")
    with FileLock(_LOCK), _no_services_started():
        if packages := missing():
            quiet = {"DEBIAN_FRONTEND": "noninteractive"}
            waiting = ["-o", "DPkg::Lock::Timeout=300"]
            run(
                [apt, *waiting, "update"],
                what="Updating Debian's package lists",
                on_log=on_log,
                timeout_seconds=_INSTALL_SECONDS,
                environment=quiet,
            )
            run(
                [apt, *waiting, "install", "--yes", "--no-install-recommends", *packages],
                what=f"Installing {' '.join(packages)}",
                on_log=on_log,
                timeout_seconds=_INSTALL_SECONDS,
                environment=quiet,
            )
    if absent := missing():
        raise HarnessError(f"Installed, and yet not there: {' '.join(NEEDED[package] for package in absent)}.")


def missing() -> list[str]:
    """Packages whose command or file is not on this machine."""
    return [package for package, wanted in NEEDED.items() if shutil.which(wanted) is None and not Path(wanted).exists()]


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
