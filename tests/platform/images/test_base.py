import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from asgard.errors import InfrastructureFailed
from asgard.platform.images import base as bases
from asgard.platform.images import blobs, layers, oci
from asgard.platform.images import registry as client
from asgard.platform.images.contents import Contents, Python, inspect
from asgard.platform.images.layers import Entry, Link
from asgard.platform.images.registry import Repository

from ...cluster.harness import Prepared
from ...ports import free_port
from . import front, registries
from .conftest import ignore

GLIBC = b"\0GNU C Library (Debian GLIBC 2.31-13) stable release version 2.31.\0"
LIBC = "lib/aarch64-linux-gnu/libc-2.31.so"
ARM = "linux/arm64"


def layer(cache: Path, *entries: Entry) -> Path:
    return blobs.path(cache, layers.write(entries, "base", cache).descriptor.digest)


def put_image(
    host: str, name: str, tag: str, cache: Path, *entries: Entry, docker: bool = False, architecture: str = "amd64"
) -> str:
    """Push an image of one layer; its manifest's digest."""
    made = layers.write(entries, "base", cache)
    about = {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [made.diff_id]}}
    config = json.dumps(about).encode()
    kinds = ("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip")
    described = [
        {"mediaType": kind, "digest": digest, "size": size}
        for kind, digest, size in zip(
            kinds if docker else (oci.CONFIG, oci.LAYER_GZIP),
            (blobs.add(cache, config), made.descriptor.digest),
            (len(config), made.descriptor.size),
            strict=True,
        )
    ]
    media_type = oci.DOCKER_MANIFEST if docker else oci.MANIFEST
    document = {"schemaVersion": 2, "mediaType": media_type, "config": described[0], "layers": described[1:]}
    return put_document(host, name, tag, cache, document, described)


def put_document(
    host: str, name: str, tag: str, cache: Path, document: dict[str, Any], described: list[dict[str, Any]]
) -> str:
    content = json.dumps(document).encode()
    with Repository(host, name, push=True) as repository:
        for blob in map(oci.descriptor_from, described):
            repository.upload(blob, lambda digest=blob.digest: blobs.path(cache, digest), ignore)  # type: ignore[misc]
        repository.put_manifest(tag, content, document["mediaType"])
    return oci.digest_of(content)


def test_the_first_python_on_the_path_is_the_one(tmp_path: Path) -> None:
    found = inspect(
        [
            layer(tmp_path, Entry(LIBC, GLIBC), Entry("usr/bin/python3.11", b"x"), Entry("usr/bin/python3.12", b"x")),
            layer(tmp_path, Entry("usr/local/bin/python3.11", b"x"), Entry("opt/bin/python3.10", b"x")),
        ],
        ARM,
        ["/usr/local/bin", "/usr/bin/", "/bin"],
        tmp_path / "kept",
    )
    assert found == Contents(
        {"3.11": Python("/usr/local/bin/python3.11", None), "3.12": Python("/usr/bin/python3.12", None)}, 31
    )


def test_what_a_layer_removes_is_not_there(tmp_path: Path) -> None:
    below = layer(
        tmp_path,
        Entry(LIBC, GLIBC), Entry("usr/bin/python3.10", b"x"), Entry("usr/bin/python3.11", b"x"),
        Entry("opt/bin/python3.12", b"x"), Entry("srv/bin/python3.13", b"x"),
    )  # fmt: skip
    above = layer(
        tmp_path,
        Entry("usr/bin/.wh.python3.10", b""), Entry("opt/bin/.wh..wh..opq", b""), Entry(".wh.srv", b""),
    )  # fmt: skip
    found = inspect([below, above], ARM, ["/usr/bin", "/opt/bin", "/srv/bin"], tmp_path / "kept")
    assert list(found.pythons) == ["3.11"]


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([Entry(LIBC, GLIBC), Entry("opt/python3.11", b"x")], "no python3.X on its PATH"),
        ([Entry("usr/bin/python3.11", b"x"), Entry("lib/ld-musl-aarch64.so.1", b"x")], "no GNU C library"),
    ],
)
def test_an_image_without_python_or_glibc_is_no_base(entries: list[Entry], told: str, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureFailed, match=told):
        inspect([layer(tmp_path, *entries)], ARM, ["/usr/bin"], tmp_path / "kept")


def test_a_layer_that_cannot_be_read_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(2000))
    with pytest.raises(InfrastructureFailed, match="gzip is the compression that can"):
        inspect([tmp_path / "layer"], ARM, ["/usr/bin"], tmp_path / "kept")


def test_nothing_of_an_image_lands_outside_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    leading_out = layer(
        tmp_path,
        Entry(LIBC, GLIBC), Entry("usr/bin/python3.11", b"x"),
        Entry("usr/lib/python3.11/out", Link("../" * 20 + str(outside).lstrip("/"))),
        Entry("usr/lib/python3.11/absolute", Link(str(outside))),
    )  # fmt: skip
    through = layer(
        tmp_path,
        Entry("usr/lib/python3.11/out/a.py", b"x"), Entry("usr/lib/python3.11/absolute/b.py", b"x"),
        Entry("../../usr/lib/python3.11/c.py", b"x"),
    )  # fmt: skip
    inspect([leading_out, through], ARM, ["/usr/bin"], tmp_path / "kept")
    assert list(outside.iterdir()) == []
    assert (tmp_path / "kept/root/usr/lib/python3.11/c.py").exists()


def test_a_real_base_is_described_and_its_python_runs_here(base: bases.Base, base_name: str) -> None:
    assert base.reference.tag is None
    assert str(base.reference).startswith(base_name.rpartition(":")[0] + "@sha256:")
    assert base.contents.glibc == 36
    python = base.contents.pythons["3.11"]
    assert (python.path, str(python.release).rpartition(".")[0]) == ("/usr/bin/python3.11", "3.11")
    assert len(base.layers) == 1


def test_what_was_resolved_is_found_again_by_its_digest_with_no_registry(
    base: bases.Base, base_name: str, cache: Path
) -> None:
    gone = f"127.0.0.1:{free_port()}/test/python@{base.reference.digest}"
    found = bases.resolve(gone, "linux/amd64", cache, ignore)
    assert (found.layers, found.contents, found.config) == (base.layers, base.contents, base.config)


def test_the_python_of_a_model_names_the_base(registry: str, base_name: str, base: bases.Base, cache: Path) -> None:
    found = bases.resolve(f"{registry}/test/python:{{python}}", "linux/amd64", cache, ignore, python="3.11")
    assert found.reference == base.reference


def entries(content: bytes = b"x") -> list[Entry]:
    return [Entry(LIBC, GLIBC), Entry("usr/bin/python3.11", content)]


def test_the_image_for_the_platform_is_chosen_from_an_index(registry: str, tmp_path: Path) -> None:
    name = "test/several"
    manifests = []
    for architecture in ("amd64", "arm64"):
        digest = put_image(
            registry, name, architecture, tmp_path, *entries(architecture.encode()), architecture=architecture
        )
        with Repository(registry, name) as repository:
            content, media_type = repository.manifest(digest)
        manifests.append(
            {
                "mediaType": media_type,
                "digest": digest,
                "size": len(content),
                "platform": {"os": "linux", "architecture": architecture},
            }
        )
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": manifests}
    put_document(registry, name, "latest", tmp_path, index, [])
    for architecture, entry in zip(("amd64", "arm64"), manifests, strict=True):
        found = bases.resolve(f"{registry}/{name}", f"linux/{architecture}", tmp_path / "cache", ignore)
        assert found.reference.digest == entry["digest"]
        assert found.config["architecture"] == architecture
    manifests.pop()
    put_document(registry, name, "one", tmp_path, index, [])
    with pytest.raises(InfrastructureFailed, match="has no image for linux/arm64"):
        bases.resolve(f"{registry}/{name}:one", "linux/arm64", tmp_path / "cache", ignore)


def test_an_image_of_another_platform_is_no_base(registry: str, tmp_path: Path) -> None:
    put_image(registry, "test/other", "latest", tmp_path, *entries(), architecture="arm64")
    with pytest.raises(InfrastructureFailed, match=r"It is for linux/arm64\. Set ASGARD_BASE_IMAGE") as raised:
        bases.resolve(f"{registry}/test/other", "linux/amd64", tmp_path / "cache", ignore)
    assert raised.value.reason == "UnfitBaseImage"


def test_an_image_in_dockers_own_format_is_a_base(registry: str, tmp_path: Path) -> None:
    put_image(registry, "test/docker", "latest", tmp_path, *entries(), docker=True)
    found = bases.resolve(f"{registry}/test/docker", "linux/amd64", tmp_path / "cache", ignore)
    assert [entry.descriptor.media_type for entry in found.layers] == [oci.LAYER_GZIP]


def test_an_image_that_is_not_there_is_named(registry: str, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureFailed, match=f"There is no image {registry}/test/nothing:1"):
        bases.resolve(f"{registry}/test/nothing:1", "linux/amd64", tmp_path, ignore)


def test_a_tag_is_asked_for_only_now_and_then_and_kept_for_a_registry_that_is_away(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ATTEMPTS", 2)
    with front.running(registry) as proxy:
        name = f"{proxy.host}/test/moving"
        first = put_image(registry, "test/moving", "latest", tmp_path, *entries(b"1"))
        assert bases.resolve(name, "linux/amd64", tmp_path / "cache", ignore).reference.digest == first
        second = put_image(registry, "test/moving", "latest", tmp_path, *entries(b"2"))
        asked = len(proxy.requests)
        assert bases.resolve(name, "linux/amd64", tmp_path / "cache", ignore).reference.digest == first
        assert len(proxy.requests) == asked
        age(tmp_path / "cache")
        assert bases.resolve(name, "linux/amd64", tmp_path / "cache", ignore).reference.digest == second
    age(tmp_path / "cache")
    lines: list[str] = []
    assert bases.resolve(name, "linux/amd64", tmp_path / "cache", lines.append).reference.digest == second
    assert "cannot be reached" in lines[0]
    assert "found earlier is used" in lines[0]


def age(cache: Path) -> None:
    for path in (blobs.folder(cache) / "tags").iterdir():
        os.utime(path, (time.time() - 2 * bases.FRESH_SECONDS,) * 2)


def test_what_is_not_what_its_digest_says_is_not_taken(prepared: Prepared, tmp_path: Path) -> None:
    with registries.running(tmp_path / "registry") as host:
        put_image(host, "test/changed", "latest", tmp_path, *entries())
        (layer,) = (
            path for path in (tmp_path / "registry/data").rglob("data") if path.read_bytes().startswith(b"\x1f\x8b")
        )
        content = bytearray(layer.read_bytes())
        content[-1] ^= 1
        layer.write_bytes(content)
        with pytest.raises(InfrastructureFailed, match="has another digest"):
            bases.resolve(f"{host}/test/changed", "linux/amd64", tmp_path / "cache", ignore)
