"""The file that says what serves."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from asgard.serving import desired

WANTED = desired.Desired(
    "iris", "127.0.0.1", 20123, 1, 2**31, 1000, "/e/bin/python", "/b/iris/00", {"version": 1, "run_id": "r"}
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    assert desired.read(tmp_path) is None
    desired.write(tmp_path, WANTED)
    assert desired.read(tmp_path) == WANTED
    assert [path.name for path in tmp_path.iterdir()] == ["desired.json"]
    assert json.loads((tmp_path / "desired.json").read_text())["schema"] == 1


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        desired.write(tmp_path, WANTED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"schema": 2}, {"unknown": 1}])
def test_a_format_that_is_not_known_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"schema 2|unknown"):
        desired.from_json(desired.to_json(WANTED) | change)


def test_workers_stay_only_when_nothing_but_their_number_changes() -> None:
    assert WANTED.differs_in_replicas_only(replace(WANTED, replicas=3))
    assert not WANTED.differs_in_replicas_only(replace(WANTED, replicas=3, memory_limit_bytes=1))
