"""The end of a cluster: its processes, containers, control groups, mounts, network, files. Whether it ended or died."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from asgard.platform.processes import end_marked

from .model import HarnessError
from .slots import Slot

MARK: Final = "TEST_CLUSTER_FOLDER"
"""Environment variable of every process of a cluster, its containers' shims too; its value is the cluster's folder."""

_CGROUPS: Final = Path("/sys/fs/cgroup")
_CNI_RESULTS: Final = Path("/var/lib/cni/results")
_SHIMS: Final = "containerd/state/io.containerd.runtime.v2.task"
_CONTAINER_LOGS: Final = Path("/var/log/containers")
_SECONDS: Final = 30


def clean(slot: Slot, folder: Path) -> None:
    """Ends and removes all that is left of the cluster that had this slot and folder; the parts' logs stay."""
    end_marked(MARK, str(folder))
    end_containers(slot)
    pods = [path.name for path in folder.glob(f"{_SHIMS}/*/*")]
    _remove_shim_sockets(folder)
    _unmount(folder)
    subprocess.run(["ip", "link", "delete", slot.network], capture_output=True, check=False)
    for pod in pods:
        for result in _CNI_RESULTS.glob(f"*-{pod}-*"):
            result.unlink(missing_ok=True)
    for log in _CONTAINER_LOGS.glob("*.log"):
        if log.is_symlink() and log.readlink().is_relative_to(folder):
            log.unlink(missing_ok=True)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.suffix != ".log":
            path.unlink()


def end_containers(slot: Slot) -> None:
    """Kill what runs in the pods' control groups, then remove the groups."""
    deadline = time.monotonic() + _SECONDS
    while (groups := list(_groups(slot))) and time.monotonic() < deadline:
        for group in groups:
            with suppress(OSError):
                for pid in (group / "cgroup.procs").read_text().split():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
        for group in groups:
            with suppress(OSError):  # Not empty yet.
                group.rmdir()
        time.sleep(0.05)


def _groups(slot: Slot) -> Iterator[Path]:
    """Innermost first, in each hierarchy (version 1) or the one (version 2)."""
    for root in [_CGROUPS, *_CGROUPS.glob("*/")]:
        for directory, _, _ in os.walk(root / slot.cgroup, topdown=False):
            yield Path(directory)


_SHARES: Final = {"cpu.shares": "8192", "cpu.weight": "800"}
"""Of the processor, in version 1 and 2: else all pods together count as much as one of the machine's own processes."""


def make_cgroup(slot: Slot) -> None:
    """The pods' parent group, in each hierarchy that has controllers."""
    for root in [_CGROUPS, *_CGROUPS.glob("*/")]:
        if not (root / "cgroup.procs").exists():
            continue
        group = root / slot.cgroup
        group.mkdir(exist_ok=True)
        for setting in (
            "cpuset.cpus",
            "cpuset.mems",
        ):  # Version 1: empty in a new group, so nothing could run.
            if (root / setting).exists() and not (group / setting).read_text().strip():
                (group / setting).write_text((root / setting).read_text())
        for setting, value in _SHARES.items():
            if (group / setting).exists():
                (group / setting).write_text(value)


def _unmount(folder: Path) -> None:
    """Containers' roots, network namespaces and volumes; what was mounted last goes first."""
    for point in reversed(_mounts(folder)):
        subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
    if left := _mounts(folder):  # What is mounted there is not the harness's to delete.
        raise HarnessError("These cannot be unmounted:", list(map(str, left)))


def _mounts(folder: Path) -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(line.split()[4].replace("\\040", " ")) for line in lines]
    return [point for point in points if point.is_relative_to(folder)]


def _remove_shim_sockets(folder: Path) -> None:
    for address in folder.glob(f"{_SHIMS}/*/*/address"):
        Path(address.read_text().strip().removeprefix("unix://")).unlink(missing_ok=True)
