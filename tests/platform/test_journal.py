from dataclasses import replace
from pathlib import Path

from asgard.platform import journal
from asgard.platform.journal import Journal

ENTRY = Journal("token", "iris", "config: {}\n")


def test_what_has_been_noted_is_found_again(tmp_path: Path) -> None:
    journal.begin(tmp_path, ENTRY)
    assert journal.find(tmp_path, "iris") == ENTRY
    journal.update(tmp_path, replace(ENTRY, version=3))
    noted = journal.update(tmp_path, replace(ENTRY, version=3, infrastructure=True))
    assert journal.find(tmp_path, "iris") == noted == Journal("token", "iris", "config: {}\n", True, 3)


def test_an_operation_that_ended_leaves_nothing(tmp_path: Path) -> None:
    folder = journal.begin(tmp_path, ENTRY)
    (folder / "project").mkdir()
    assert journal.unfinished(tmp_path) == ["iris"]
    journal.end(tmp_path, "iris")
    assert journal.find(tmp_path, "iris") is None
    assert journal.unfinished(tmp_path) == []
    assert not folder.exists()


def test_a_new_operation_starts_with_an_empty_folder(tmp_path: Path) -> None:
    (journal.begin(tmp_path, ENTRY) / "leftover").touch()
    assert {path.name for path in journal.begin(tmp_path, ENTRY).iterdir()} == {"journal.json"}
