"""`logs`: what a model's processes print."""

import json
import os
import re
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import IO, Annotated, Final

import typer

from .. import naming
from . import help_text
from .failures import NOT_FOUND, CommandFailed
from .output import note

_POLL_SECONDS: Final = 0.2
_LINE: Final = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]+Z) \[(\d+)\] (.*)", re.DOTALL)
"""The lines of `serving/server_log.py`."""


def add_commands(app: typer.Typer) -> None:
    app.command(epilog=help_text.epilog(0, 2, 4, 130, variables=("ASGARD_DATA_DIR",)))(logs)


def logs(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on with what comes, across versions, until the model is destroyed."),
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines to show.", min=0)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object a line: time, pid, line.")] = False,
) -> None:
    """Show what the server of a model on this machine printed: time (UTC), process, line.

    Try:
      asgard logs iris-classifier -f
    """
    from .configuration import load

    data_dir = load().data_dir
    path = data_dir / "models" / name / "logs" / "server.log"
    # A name is a folder's name here, so nothing but a model's name will do.
    if not naming.is_model_name(name) or not path.parent.is_dir():
        raise CommandFailed(
            "There is no such log",
            f"No model named {name!r} is served from the data folder {data_dir}. `asgard models` lists the models "
            "there are.",
            NOT_FOUND,
        )
    show = _as_json if as_json else _as_text
    for chunk in read(path, lines, follow=follow):
        show(chunk)
    if follow:
        note(f"{name} was destroyed.")


def read(path: Path, lines: int, *, follow: bool) -> Generator[list[str], None, None]:
    """The last lines of a log and its rotated siblings; with `follow`, then what is added until its folder is gone."""
    files = _open(path)
    try:
        last: deque[str] = deque(maxlen=lines)
        tail = _Tail()
        for file in files:
            last.extend(tail.read(file))
        yield list(last)
        while follow and path.parent.is_dir():
            current = files[-1] if files else None
            fresh = _open(path)
            # Asked after the new ones were opened: a file that was set aside has no more lines coming.
            added = list(tail.read(current)) if current else []
            newer = _after(fresh, current)
            for file in newer:
                added += tail.read(file)
            kept = newer or files
            _close({*files, *fresh} - {*kept})
            files = kept
            yield added
            if not added:
                time.sleep(_POLL_SECONDS)
    finally:
        _close(files)


class _Tail:
    """Whole lines of files that grow; half a line is kept until its end comes."""

    def __init__(self) -> None:
        self._half = ""

    def read(self, file: IO[str]) -> Iterator[str]:
        for line in file:
            self._half += line
            if line.endswith("\n"):
                yield self._half
                self._half = ""


def _open(path: Path) -> list[IO[str]]:
    """The log's files, the oldest first, each once even when they are rotated meanwhile."""
    found: dict[int, IO[str]] = {}
    number = 0
    while True:
        try:
            file = path.with_name(f"{path.name}.{number}" if number else path.name).open(errors="replace", newline="\n")
        except FileNotFoundError:
            if number:
                return list(found.values())[::-1]
        else:
            if found.setdefault(_inode(file), file) is not file:
                file.close()
        number += 1


def _close(files: Iterable[IO[str]]) -> None:
    """By hand: where Python does it, as a file is forgotten, a Ctrl-C that comes meanwhile is lost."""
    for file in files:
        file.close()


def _after(files: list[IO[str]], file: IO[str] | None) -> list[IO[str]]:
    """Those that came after `file`; all of them where it is none of them any more."""
    inodes = [_inode(one) for one in files]
    return files[inodes.index(_inode(file)) + 1 :] if file and _inode(file) in inodes else files


def _inode(file: IO[str]) -> int:
    return os.fstat(file.fileno()).st_ino


def _as_text(lines: Iterable[str]) -> None:
    if text := "".join(lines):
        typer.echo(text, nl=False)


def _as_json(lines: Iterable[str]) -> None:
    for line in lines:
        parts = _LINE.fullmatch(line.rstrip("\n"))
        record = {"time": parts[1], "pid": int(parts[2]), "line": parts[3]} if parts else {"line": line.rstrip("\n")}
        typer.echo(json.dumps(record))
