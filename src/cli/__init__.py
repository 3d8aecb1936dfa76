"""The command line, `asgard`.

What a command needs is imported when it runs: `asgard --help` and the commands that only speak HTTP are up at once.
"""

import os
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..platform import loopback
from . import deploy, help_text, logs, operate, read, serve, shared
from .failures import INTERRUPTED, show_defect, told


class _Commands(TyperGroup):
    """Tells what went wrong in words, and ends with the exit code that belongs to it."""

    def invoke(self, ctx: Any) -> Any:
        with told():
            return super().invoke(ctx)


app = typer.Typer(
    name="asgard",
    cls=_Commands,
    help=help_text.ASGARD,
    epilog=help_text.epilog(
        0, 1, 2, 3, 4, 5, INTERRUPTED, variables=("ASGARD_URL", "ASGARD_API_TOKEN", "ASGARD_DATA_DIR")
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for module in (serve, deploy, read, logs, operate, shared):
    module.add_commands(app)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"asgard {version('asgard')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command that the process's arguments name."""
    os.environ.update(loopback.past_proxies(os.environ))
    try:
        app()
    except Exception as error:
        show_defect(error)
        sys.exit(1)
