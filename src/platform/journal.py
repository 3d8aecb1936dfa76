"""What a deploy, rollback or teardown must put back if it does not end well.

Written before each step that something would have to undo, removed at the end. Whoever finds one while holding the
model's lock knows that the process that wrote it died, or that its undo failed.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Journal:
    """`token` marks all that belongs to the operation. `stack_file`: its text before; None: there was none.

    `infrastructure`: the stack may have been touched. `version`: the registered version, once there is one.
    `restored`: an undo has put the stack file back; what differs now is somebody's edit.
    `marked`: MLflow may say that the new version serves.
    """

    token: str
    model: str
    stack_file: str | None
    infrastructure: bool = False
    version: int | None = None
    restored: bool = False
    marked: bool = False


def folder(data_dir: Path, model: str) -> Path:
    """The operation's folder: the journal and all its temporary files."""
    return data_dir / "deploys" / model


def begin(data_dir: Path, entry: Journal) -> Path:
    """Start an operation with an empty folder of its own; gives that folder."""
    path = folder(data_dir, entry.model)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    _write(path, entry)
    return path


def update(data_dir: Path, entry: Journal) -> Journal:
    """Note how far the operation, or its undo, has come, before the step that would have to be undone."""
    _write(folder(data_dir, entry.model), entry)
    return entry


def note_image(data_dir: Path, model: str, repository: str, tag: str) -> None:
    """Before an image is pushed on behalf of the model's operation, if there is one: its undo removes it."""
    path = folder(data_dir, model)
    if (path / "journal.json").exists():
        (path / "image.json").write_text(json.dumps([repository, tag]))


def noted_image(data_dir: Path, model: str) -> tuple[str, str] | None:
    """Repository and tag of what `note_image` noted for the unfinished operation."""
    try:
        repository, tag = json.loads((folder(data_dir, model) / "image.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return repository, tag


def find(data_dir: Path, model: str) -> Journal | None:
    """The journal of the model's unfinished operation, if there is one."""
    try:
        return Journal(**json.loads((folder(data_dir, model) / "journal.json").read_text()))
    except FileNotFoundError:
        return None


def free_space(data_dir: Path, model: str) -> None:
    """Remove the operation's temporary files; what its undo reads stays. Where they filled the disk it can write."""
    for path in folder(data_dir, model).iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def unfinished(data_dir: Path) -> list[str]:
    """Models with an operation that runs or did not end."""
    return sorted(path.parent.name for path in (data_dir / "deploys").glob("*/journal.json"))


def end(data_dir: Path, model: str) -> None:
    """The operation has ended and left nothing to undo."""
    path = folder(data_dir, model)
    (path / "journal.json").unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, entry: Journal) -> None:
    temporary = path / ".journal.json"
    with temporary.open("w") as file:
        json.dump(asdict(entry), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path / "journal.json")
