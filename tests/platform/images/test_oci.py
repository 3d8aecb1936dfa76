import json

import pytest

from asgard.platform.images import oci
from asgard.platform.images.oci import Descriptor, Layer

ONE, TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
LAYER = Layer(Descriptor(oci.LAYER_GZIP, ONE, 10), TWO, "model")
BASE = {
    "architecture": "arm64",
    "os": "linux",
    "variant": "v8",
    "config": {"Env": ["PATH=/bin", "LANG=C"], "Cmd": ["python3"], "Labels": {"a": "base", "b": "base"}},
    "history": [{"created_by": "something"}, {"created_by": "ENV", "empty_layer": True}],
    "rootfs": {"type": "layers", "diff_ids": [ONE]},
}


def test_an_image_runs_what_it_should_on_top_of_its_base() -> None:
    found = json.loads(oci.config(BASE, [LAYER], {"Env": ["LANG=C.UTF-8", "HOME=/tmp"], "User": "1:1"}, {"a": "own"}))
    assert found["config"] == {
        "Env": ["PATH=/bin", "LANG=C.UTF-8", "HOME=/tmp"],
        "User": "1:1",
        "Labels": {"a": "own", "b": "base"},
    }
    assert (found["architecture"], found["os"], found["variant"]) == ("arm64", "linux", "v8")
    assert found["rootfs"]["diff_ids"] == [ONE, TWO]
    assert len([entry for entry in found["history"] if not entry.get("empty_layer")]) == 2


def test_a_base_that_says_little_is_enough() -> None:
    base = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [ONE]}}
    found = json.loads(oci.config(base, [LAYER], {}, {}))
    assert len(found["history"]) == len(found["rootfs"]["diff_ids"]) == 2


def test_a_manifest_names_its_blobs() -> None:
    config = Descriptor(oci.CONFIG, TWO, 5)
    assert json.loads(oci.manifest(config, [LAYER.descriptor], {"a": "é"})) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": TWO, "size": 5},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": ONE, "size": 10}],
        "annotations": {"a": "é"},
    }


def test_equal_documents_are_written_the_same() -> None:
    assert oci.canonical({"a": 1, "b": {"c": 2, "d": 3}}) == oci.canonical({"b": {"d": 3, "c": 2}, "a": 1})


def test_dockers_layers_are_ocis() -> None:
    found = oci.descriptor_from(
        {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": ONE, "size": 1}
    )
    assert found == Descriptor(oci.LAYER_GZIP, ONE, 1)


@pytest.mark.parametrize("digest", ["sha512:" + "a" * 128, "sha256:../../etc/passwd", "sha256:" + "A" * 64, ""])
def test_a_digest_that_is_none_never_becomes_a_file_name(digest: str) -> None:
    with pytest.raises(ValueError, match="is not a SHA-256 digest"):
        Descriptor(oci.LAYER, digest, 1)
