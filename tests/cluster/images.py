"""The images that a cluster has from the start: its pods' "pause", and a base with Python for models."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from filelock import FileLock

from . import oci
from .model import HarnessError
from .node import PAUSE_IMAGE
from .processes import OnLog, run

SUITE: Final = "bookworm"
PACKAGES: Final = ("python3-minimal", "libpython3-stdlib", "ca-certificates", "libgomp1")
"""What the environment of a model that is made of wheels needs from its base: an interpreter, and GCC's OpenMP."""

BASE_REPOSITORY: Final = "test/base"
_NOT_NEEDED: Final = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt", "var/lib/apt/lists")
_DEBOOTSTRAP_SECONDS: Final = 1200

_PAUSE: Final = """
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int signal) { exit(0); }
static void reap(int signal) { while (waitpid(-1, NULL, WNOHANG) > 0); }
int main(void) { signal(SIGINT, end); signal(SIGTERM, end); signal(SIGCHLD, reap); for (;;) pause(); }
"""


def pause(folder: Path) -> oci.Image:
    """What holds a pod's namespaces. Images cannot be pulled from outside, so it is compiled here."""
    program = folder / "pause"
    compiled = subprocess.run(
        ["gcc", "-static", "-O2", "-x", "c", "-o", program, "-"],
        input=_PAUSE,
        capture_output=True,
        text=True,
        check=False,
    )
    if compiled.returncode != 0:
        raise HarnessError("The pause program cannot be compiled.", compiled.stderr.splitlines()[-10:])
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(program, "pause")
    return oci.image(layer.getvalue(), ["/pause"])


def import_pause(folder: Path, containerd: Path) -> None:
    """Into the node's containerd."""
    archive = folder / "pause.tar"
    archive.write_bytes(oci.archive(pause(folder), PAUSE_IMAGE))
    done = subprocess.run(
        ["ctr", "--address", containerd, "--namespace", "k8s.io", "images", "import", archive],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise HarnessError("The pause image cannot be imported.", done.stderr.splitlines()[-10:])


def base_layer(cache: Path, on_log: OnLog) -> Path:
    """An uncompressed tar of a small Debian with Python: at once, or in about a minute the first time."""
    layer = cache / "base-image" / f"{SUITE}-{'-'.join(PACKAGES)}.tar"
    layer.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(layer.with_suffix(".lock")):
        if not layer.exists():
            _bootstrap(layer, on_log)
    return layer


def push_base(layer: Path, registry: str) -> str:
    """Returns the image's reference."""
    return oci.push(oci.image(layer, ["python3"]), registry, BASE_REPOSITORY, SUITE)


def _bootstrap(layer: Path, on_log: OnLog) -> None:
    root, partial = layer.with_suffix(".root"), layer.with_suffix(".partial")
    shutil.rmtree(root, ignore_errors=True)
    try:
        run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)],
            what=f"Making a base image of Debian {SUITE}",
            on_log=on_log,
            timeout_seconds=_DEBOOTSTRAP_SECONDS,
        )
        with tarfile.open(partial, "w") as tar:
            tar.add(root, ".", filter=lambda entry: None if entry.name[2:].startswith(_NOT_NEEDED) else entry)
        partial.rename(layer)
    finally:
        shutil.rmtree(root, ignore_errors=True)
        partial.unlink(missing_ok=True)
