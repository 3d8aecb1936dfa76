"""What goes to the terminal: results to the standard output, all else to the standard error."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

import typer

from ..progress import Progress

if TYPE_CHECKING:
    from rich.console import Console

_NOT_A_TERMINAL_WIDTH = 10_000
"""Columns: what a program reads is not wrapped."""


def console(*, stderr: bool = False) -> "Console":
    """A console that shows text as it is: what comes from a server or script is never taken for markup."""
    from rich.console import Console

    stream: TextIO | None = sys.stderr if stderr else sys.stdout  # None where the shell closed it
    width = None if stream and stream.isatty() else _NOT_A_TERMINAL_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=stderr)


def print_json(value: Any) -> None:
    """JSON, in ASCII so that every terminal and pipe takes it."""
    typer.echo(json.dumps(value, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    for column in columns:
        table.add_column(column, overflow="fold")  # a URL or a run's id that is cut is of no use
    for row in rows:
        table.add_row(*(printable(str(cell)) for cell in row))
    console().print(table)


def printable(text: str) -> str:
    """The text without what moves cursors or changes colours."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def note(text: str) -> None:
    """A line for people, on the standard error."""
    console(stderr=True).print(text)


class Stages:
    """An operation's progress on the standard error, as it happens; on a terminal with what goes on in the last line.

    Threads may call it.
    """

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._status = self._console.status("")
        self._began: float | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._open.enter_context(self._status)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        if error is None:
            self._end_stage()

    @property
    def began(self) -> bool:
        """Whether any stage has."""
        return self._began is not None

    def stage(self, stage: str, message: str) -> None:
        """A stage begins, and with that the one before has ended."""
        self._end_stage()
        self._began = time.monotonic()
        self._print(f"{printable(stage)}: {printable(message)}", "bold")
        self._status.update(printable(message))

    def log(self, line: str) -> None:
        """A line of output; its colours are kept, all else that a terminal would obey is not."""
        from rich.text import Text

        self._console.print(Text.assemble("  ", Text.from_ansi(line, style="dim")))

    def on_progress(self, progress: Progress) -> None:
        """An OnProgress."""
        if progress.kind == "stage":
            self.stage(progress.stage, progress.text)
        else:
            self.log(progress.text)

    def _end_stage(self) -> None:
        if self._began is not None:
            self._print(f"  done in {time.monotonic() - self._began:.1f} s", "dim")
            self._began = None

    def _print(self, text: str, style: str) -> None:
        from rich.text import Text

        self._console.print(Text(text, style))  # a style given to `print` would be that of the last line, too
