import errno
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from asgard.errors import DiskFull
from asgard.platform import files


def test_of_those_who_replace_a_file_at_once_one_wins_and_readers_see_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = [letter * 100_000 for letter in "abcd"]
    files.replace(path, texts[0])
    ended = threading.Event()

    def read() -> set[str]:
        found = set()
        while not ended.is_set():
            found.add(path.read_text())
        return found

    with ThreadPoolExecutor(5) as pool:
        reading = pool.submit(read)
        list(pool.map(partial(files.replace, path), texts * 50))
        ended.set()
    assert reading.result() <= set(texts)
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        shutil.Error([("from", "to", "[Errno 28] No space left on device: 'to'")]),
    ],
    ids=["disk", "quota", "tree"],
)
def test_a_full_disk_is_told_as_that(error: OSError) -> None:
    with pytest.raises(DiskFull, match="No space is left"), files.full_disk_told():
        raise error


def test_another_failure_of_a_file_is_told_as_it_is() -> None:
    with pytest.raises(PermissionError), files.full_disk_told():
        raise PermissionError(errno.EACCES, "Permission denied")
