import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgard.errors import InfrastructureFailed
from asgard.platform import pythons
from asgard.platform.environments import Lock
from asgard.platform.images import base as bases
from asgard.platform.images import blobs, layout, oci
from asgard.platform.images.base import Base
from asgard.platform.images.build import Image, build
from asgard.platform.images.oci import Layer
from asgard.serving.options import PORT

from . import bundles
from .conftest import SECONDS, ignore
from .test_environment import another_python

Build = Callable[..., Image]


def config(image: Image, cache: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(blobs.path(cache, image.config.digest).read_bytes())
    return found


def contents(layer: Layer, cache: Path) -> dict[str, bytes | str]:
    """What the files of a layer hold, and where its links point."""
    with tarfile.open(blobs.path(cache, layer.descriptor.digest)) as tar:
        return {
            member.name: member.linkname if member.issym() else tar.extractfile(member).read()  # type: ignore[union-attr]
            for member in tar
            if not member.isdir()
        }


def test_layers_come_in_the_order_of_how_rarely_they_change(small_image: Build) -> None:
    image = small_image()
    manifest = json.loads(image.manifest)
    assert [layer.title for layer in image.layers] == ["environment", "server", "model"]
    expected = [layer.descriptor.to_json() for layer in (*image.base.layers, *image.layers)]
    assert manifest["layers"] == expected
    assert manifest["config"] == image.config.to_json()
    assert image.digest == oci.digest_of(image.manifest)


def test_the_digest_is_the_same_in_another_folder_and_with_another_python_of_the_host(
    small_image: Build, base_name: str, small_lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = small_image(name="iris", number=3, content="same")
    other_python = another_python(tmp_path / "other python")
    monkeypatch.setattr(pythons, "installed", lambda: {"3.11": other_python})
    cache = tmp_path / "quite another" / "cache folder"
    base = bases.resolve(base_name, "linux/amd64", cache, ignore)
    folder = bundles.plain(tmp_path / "elsewhere" / "bundle", small_lock, number=3, content="same")
    (folder / "model" / "model.txt").chmod(0o640)
    other = build(folder, base, cache, ignore, SECONDS)
    assert other.digest == one.digest
    assert other.manifest == one.manifest


def test_another_version_differs_in_its_model_layer_and_what_names_it(small_image: Build) -> None:
    one, two = small_image(number=1), small_image(number=2)
    assert one.layers[:2] == two.layers[:2]
    assert one.layers[2].diff_id != two.layers[2].diff_id
    assert one.digest != two.digest


def test_a_container_runs_the_server_as_nobody(small_image: Build, cache: Path) -> None:
    run = config(small_image(), cache)["config"]
    assert run["User"] == "65532:65532"
    assert run["Entrypoint"] == ["/app/env/bin/python", "-m", "asgard_server.container", "/app/bundle"]
    assert "Cmd" not in run
    assert run["ExposedPorts"] == {f"{PORT}/tcp": {}}
    environment = dict(entry.split("=", 1) for entry in run["Env"])
    assert environment["PATH"] == "/usr/local/bin:/usr/bin:/bin"
    assert (environment["HOME"], environment["TMPDIR"], run["WorkingDir"]) == ("/tmp", "/tmp", "/tmp")


def test_it_says_what_it_is(small_image: Build, cache: Path, base: Base) -> None:
    image = small_image(name="iris", number=7)
    labels = config(image, cache)["config"]["Labels"]
    assert labels == {
        "org.opencontainers.image.title": "iris",
        "org.opencontainers.image.version": "7",
        "org.opencontainers.image.base.digest": base.reference.digest,
        "asgard.dev/deployment-id": "iris-v7-abcdef",
        "asgard.dev/run-id": "abcdef0123456789",
    }
    assert json.loads(image.manifest)["annotations"] == labels
    assert image.name == "iris version 7"


def test_layers_hold_what_serving_needs_and_nothing_else(small_image: Build, cache: Path) -> None:
    environment, server, model = (contents(layer, cache) for layer in small_image(content="weights").layers)
    packages = f"{layout.site_packages('3.11')}/"
    assert {name[: len(packages)] for name in environment} == {packages}
    assert set(model) == {"app/bundle/bundle.json", "app/bundle/model/MLmodel", "app/bundle/model/model.txt"}
    assert model["app/bundle/model/model.txt"] == b"weights"
    assert server["app/env/bin/python"] == "/usr/bin/python3.11"
    assert server["app/env/pyvenv.cfg"] == b"home = /usr/bin\ninclude-system-site-packages = false\n"
    assert f"{packages}asgard_server/container.py" in server
    assert f"{packages}asgard_server/__pycache__/worker.cpython-311.pyc" in server
    assert {name for name in server if not name.startswith(packages)} == {"app/env/bin/python", "app/env/pyvenv.cfg"}


def test_once_its_environment_is_made_an_image_is_built_with_no_network(
    small_image: Build, base: Base, cache: Path, small_lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = small_image(number=1, content="1").digest
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    gone = bases.resolve(f"127.0.0.1:9/test/python@{base.reference.digest}", "linux/amd64", cache, ignore)
    lines: list[str] = []
    image = build(bundles.plain(tmp_path / "bundle", small_lock), gone, cache, lines.append, SECONDS)
    assert image.digest == expected
    assert lines == []


def test_a_base_without_the_models_python_is_refused(base: Base, cache: Path, test_cache: Path, tmp_path: Path) -> None:
    lock = bundles.lock(test_cache, ["six"], python="3.12")
    with pytest.raises(InfrastructureFailed, match=r"the model needs 3\.12"):
        build(bundles.plain(tmp_path / "bundle", lock), base, cache, ignore, SECONDS)
