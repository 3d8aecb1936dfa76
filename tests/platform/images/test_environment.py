"""The environment layer, made by the real uv of the real package index's wheels."""

import json
import subprocess
import tarfile
from pathlib import Path
from uuid import uuid4

import pytest
from uv import find_uv_bin

from asgard.errors import EnvironmentUnavailable, RequirementsConflict
from asgard.platform import pythons
from asgard.platform.environments import Lock
from asgard.platform.images import base as bases
from asgard.platform.images import blobs, environment, wheels
from asgard.platform.images.base import Base
from asgard.platform.images.oci import Layer

from . import bundles
from .conftest import SECONDS, ignore

PACKAGES = "app/env/lib/python3.11/site-packages"


@pytest.fixture(scope="module")
def layer(base: Base, small_lock: Lock, cache: Path) -> Layer:
    return environment.layer(small_lock, base, cache, ignore, SECONDS)


@pytest.fixture(scope="module")
def files(layer: Layer, cache: Path) -> dict[str, bytes]:
    with tarfile.open(blobs.path(cache, layer.descriptor.digest)) as tar:
        return {member.name: file.read() for member in tar if (file := tar.extractfile(member))}


def elsewhere(base_name: str, folder: Path) -> tuple[Base, Path]:
    """The base image in a cache of its own."""
    return bases.resolve(base_name, "linux/amd64", folder, ignore), folder


def test_it_has_the_packages_and_their_byte_code(files: dict[str, bytes]) -> None:
    for name in ("six.py", "__pycache__/six.cpython-311.pyc", "uvicorn/__pycache__/main.cpython-311.pyc"):
        assert f"{PACKAGES}/{name}" in files
    assert any("httptools/parser/parser.cpython-311-x86_64-linux-gnu.so" in name for name in files)
    assert f"{PACKAGES}/six-{installed(files, 'six')}.dist-info/METADATA" in files


def installed(files: dict[str, bytes], package: str) -> str:
    (name,) = (name for name in files if name.startswith(f"{PACKAGES}/{package}-") and name.endswith("/METADATA"))
    return name.rpartition("/")[0].removeprefix(f"{PACKAGES}/{package}-").removesuffix(".dist-info")


def test_it_has_nothing_of_this_machine_in_it(files: dict[str, bytes], cache: Path) -> None:
    assert [name for name in files if "/bin/" in name or name.endswith(("/.lock", "direct_url.json"))] == []
    own = [str(cache), str(pythons.installed()["3.11"])]
    assert [name for name, content in files.items() for text in own if text.encode() in content] == []


def test_its_records_name_what_is_there(files: dict[str, bytes]) -> None:
    records = [name for name in files if name.endswith(".dist-info/RECORD")]
    assert len(records) >= 4
    for record in records:
        rows = [row.split(",")[0] for row in files[record].decode().splitlines()]
        assert [row for row in rows if f"{PACKAGES}/{row}" not in files and "__pycache__" not in row] == []


def test_installing_changes_nothing_in_uvs_cache(
    base: Base, small_lock: Lock, layer: Layer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are hard links into it."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path))
    held = []
    for number in range(2):
        monkeypatch.setattr(environment, "RECIPE", f"{environment.RECIPE} {number}")
        assert environment.layer(small_lock, base, cache, ignore, SECONDS) == layer
        archive = tmp_path / "archive-v0"
        held.append({path: path.read_bytes() for path in archive.rglob("*") if path.is_file()})
    assert len(held[0]) > 50
    assert held[0] == held[1]


def test_it_is_made_once(base: Base, small_lock: Lock, layer: Layer, cache: Path) -> None:
    lines: list[str] = []
    assert environment.layer(small_lock, base, cache, lines.append, SECONDS) == layer
    assert lines == []


def another_python(folder: Path) -> Path:
    """Of the same version as the one that is used, of another release where this machine has one."""
    used = pythons.installed()["3.11"].resolve()
    uv = find_uv_bin()
    listed = subprocess.check_output([uv, "python", "list", "--only-installed", "--output-format=json", "3.11"])
    for entry in json.loads(listed):
        path = Path(entry["path"])
        if path.resolve() != used and "shims" not in path.parts and entry["implementation"] == "cpython":
            return path
    subprocess.run([uv, "venv", "--quiet", f"--python={used}", folder], check=True)
    return folder / "bin" / "python"


def test_another_folder_and_another_python_of_the_host_give_the_same_layer(
    base_name: str, small_lock: Lock, layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = another_python(tmp_path / "other python")
    monkeypatch.setattr(pythons, "installed", lambda: {"3.11": other})
    base, cache = elsewhere(base_name, tmp_path / f"a cache {uuid4()}")
    assert environment.layer(small_lock, base, cache, ignore, SECONDS) == layer


def test_with_the_network_off_uvs_cache_is_enough(
    base: Base, small_lock: Lock, layer: Layer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(environment, "RECIPE", f"{environment.RECIPE} again")
    assert environment.layer(small_lock, base, cache, ignore, SECONDS) == layer


def test_an_index_out_of_reach_is_not_the_posters_fault(
    base: Base, small_lock: Lock, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(environment, "RECIPE", "out of reach")
    with pytest.raises(EnvironmentUnavailable, match="could not be installed"):
        environment.layer(small_lock, base, cache, ignore, SECONDS)
    assert list((blobs.folder(cache) / "work").iterdir()) == []


def test_installing_has_a_limit_of_time(
    base: Base, small_lock: Lock, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "RECIPE", "hurried")
    with pytest.raises(EnvironmentUnavailable, match="ASGARD_ENVIRONMENT_TIMEOUT_SECONDS"):
        environment.layer(small_lock, base, cache, ignore, 0.001)


def test_a_lock_without_a_wheel_is_refused_while_installing_too(
    base: Base, cache: Path, test_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = bundles.lock(test_cache, ["uvloop==0.22.1", "numpy==2.3.5"])
    monkeypatch.setattr(wheels, "uv_platform", lambda _: "x86_64-manylinux_2_17")
    with pytest.raises(RequirementsConflict, match="numpy"):
        environment.layer(lock, base, cache, ignore, SECONDS)
