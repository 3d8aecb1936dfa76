import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from asgard.platform.images import blobs, layers, oci
from asgard.platform.images.layers import Entry, Link
from asgard.platform.images.oci import Layer


def make(folder: Path) -> Path:
    (folder / "b" / "deep").mkdir(parents=True)
    (folder / "b" / "deep" / ("long" * 40)).write_text("content")
    (folder / "b" / "run").write_text("#!/bin/sh\n")
    (folder / "b" / "run").chmod(0o700)
    (folder / "a é.txt").write_bytes(bytes(range(256)) * 1000)
    (folder / "a é.txt").chmod(0o600)
    (folder / "link").symlink_to("b/run")
    return folder


def members(cache: Path, layer: Layer) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(blobs.path(cache, layer.descriptor.digest)) as tar:
        return {member.name: member for member in tar}


def test_a_layer_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    one, other = make(tmp_path / "one"), make(tmp_path / "other folder")
    for path in sorted(other.rglob("*"), reverse=True):
        os.utime(path, (1, 1), follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700 | 0o070)
    found = [
        layers.write(layers.tree(one, "app"), "model", tmp_path / "cache one"),
        layers.write(reversed(list(layers.tree(other, "app"))), "model", tmp_path / "cache other"),
    ]
    assert found[0] == found[1]


def test_the_bytes_of_a_layer_are_the_same_as_ever(tmp_path: Path) -> None:
    """Where this fails, another version of a library gives other bytes: images cannot be made again as they were."""
    layer = layers.write(layers.tree(make(tmp_path / "tree"), "app"), "model", tmp_path)
    assert layer.diff_id == "sha256:e1467348bb28fc2ec358f0e5c129f620df8578622447b4472d33fb5128eacc90"
    assert layer.descriptor.digest == "sha256:42bafabcfedb46ad0990d53aef63a5f4ad4b985288c736e40d356f983b74353f"


def test_another_content_name_or_right_to_run_gives_another_layer(tmp_path: Path) -> None:
    def written() -> str:
        return layers.write(layers.tree(tmp_path / "tree", "app"), "model", tmp_path).diff_id

    make(tmp_path / "tree")
    found = [written()]
    (tmp_path / "tree" / "b" / "run").chmod(0o600)
    found.append(written())
    (tmp_path / "tree" / "b" / "run").write_text("#!/bin/bash\n")
    found.append(written())
    (tmp_path / "tree" / "b" / "run").rename(tmp_path / "tree" / "b" / "walk")
    found.append(written())
    assert len(set(found)) == 4


def test_anyone_may_read_what_belongs_to_root_and_only_programs_run(tmp_path: Path) -> None:
    layer = layers.write(layers.tree(make(tmp_path / "tree"), "app/x"), "model", tmp_path)
    found = members(tmp_path, layer)
    assert {(member.uid, member.gid, member.uname, member.gname, member.mtime) for member in found.values()} == {
        (0, 0, "", "", 1)
    }
    assert {name: oct(member.mode) for name, member in found.items() if "long" not in name} == {
        "app": "0o755", "app/x": "0o755", "app/x/a é.txt": "0o644", "app/x/b": "0o755", "app/x/b/deep": "0o755",
        "app/x/b/run": "0o755", "app/x/link": "0o777",
    }  # fmt: skip
    assert found["app/x/link"].linkname == "b/run"


def test_a_link_in_a_model_brings_in_no_file_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "secret").symlink_to("/etc/shadow")
    (tmp_path / "tree" / "folder").symlink_to("/etc")
    os.mkfifo(tmp_path / "tree" / "pipe")
    found = members(tmp_path, layers.write(layers.tree(tmp_path / "tree", "app"), "model", tmp_path))
    assert {name: member.issym() for name, member in found.items()} == {
        "app": False,
        "app/folder": True,
        "app/secret": True,
    }


def test_the_digest_is_that_of_the_blob_and_the_diff_id_that_of_the_tar(tmp_path: Path) -> None:
    entries = [Entry("a", b"text"), Entry("b", Link("a"))]
    layer = layers.write(entries, "model", tmp_path)
    blob = blobs.path(tmp_path, layer.descriptor.digest)
    assert oci.digest_of(blob.read_bytes()) == layer.descriptor.digest
    assert blob.stat().st_size == layer.descriptor.size
    plain = subprocess.run(["gzip", "-dc", blob], capture_output=True, check=True).stdout
    assert oci.digest_of(plain) == layer.diff_id
    assert list(blobs.folder(tmp_path).rglob(".*")) == []


def test_a_layer_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        layers.write([Entry("a", b"1" * 10_000_000), Entry("b", tmp_path / "gone")], "model", tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_large_file_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(600 * 1024**2)
    program = f"""
import resource
from pathlib import Path
from asgard.platform.images import layers
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
layers.write([layers.Entry("large", Path({str(large)!r}))], "model", Path({str(tmp_path)!r}))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50 * 1024, "KiB"


def test_a_layer_is_made_once_for_all_who_want_it(tmp_path: Path) -> None:
    made, found = [], []

    def make() -> Layer:
        made.append(1)
        return layers.write([Entry("a", b"text")], "model", tmp_path)

    def want() -> None:
        found.append(layers.cached("key", "model", tmp_path, make))

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(set(found))) == (1, 1)
    blobs.path(tmp_path, found[0].descriptor.digest).unlink()
    assert layers.cached("key", "model", tmp_path, make) == found[0]
    assert len(made) == 2
