"""`rollback`, `destroy`, `load` and `pulumi`: work on the data folder and the backend, with the API running or not."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from .. import naming
from . import help_text
from .failures import INTERRUPTED, NOT_FOUND, USAGE, CommandFailed
from .output import Stages, note, printable

if TYPE_CHECKING:
    from ..platform.deploy import Tools
    from ..settings import Settings

_VARIABLES = ("ASGARD_DATA_DIR", "ASGARD_STACKS_DIR", "ASGARD_BACKEND_URL", "MLFLOW_TRACKING_URI")

Name = Annotated[str, typer.Argument(help="The model's name.")]


def add_commands(app: typer.Typer) -> None:
    exits = (0, 1, 2, 4, 5, INTERRUPTED)
    app.command(epilog=help_text.epilog(*exits, variables=_VARIABLES))(rollback)
    app.command(epilog=help_text.epilog(*exits, variables=_VARIABLES))(destroy)
    app.command(
        epilog=help_text.epilog(
            0, 1, 2, 4, variables=("ASGARD_BASE_IMAGE", "ASGARD_IMAGE_PLATFORM", "DOCKER_HOST", *_VARIABLES)
        )
    )(load)
    app.command(
        epilog=help_text.epilog(1, 2, variables=_VARIABLES[:3]),
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )(pulumi)


def rollback(
    name: Name,
    version: Annotated[
        int | None,
        typer.Argument(help="The version that is to serve.", show_default="the one before what serves"),
    ] = None,
) -> None:
    """Serve an earlier version of a model again, at the same URL and without training; print the URL.

    If it does not come up, what served before keeps serving.

    Try:
      asgard rollback iris-classifier 3
    """
    from ..platform import deploy

    with _tools(name) as (tools, stages):
        deployed = deploy.rollback(tools, name, version, stages.on_progress)
    note(f"{name} version {deployed.model_version} answers after {deployed.deployment_time_seconds:.1f} s")
    typer.echo(deployed.inference_url)


def destroy(
    name: Name,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also delete the registered model, its versions and their artifacts.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Take down a model: its server, its stack and its stack file. What MLflow knows of it stays, unless purged.

    Try:
      asgard destroy iris-classifier --yes
    """
    what = "its server and its stack" + (", its versions in MLflow and their artifacts" if purge else "")
    if not yes:
        if not sys.stdin.isatty():
            raise CommandFailed("Nothing was done", "There is nobody to ask: say --yes.", USAGE)
        typer.confirm(f"Delete {name}: {what}?", abort=True, err=True)
    from ..platform import deploy

    with _tools(name) as (tools, stages):
        deploy.destroy(tools, name, stages.on_progress, purge=purge)
    note(f"{name} is gone: {what}.")


def load(
    name: Name,
    version: Annotated[
        int | None, typer.Argument(help="The version that is to be loaded.", show_default="the one that serves")
    ] = None,
) -> None:
    """Load a model's image into the local Docker daemon, to run or look at it there; print its name.

    Try:
      docker run --rm -p 8080:8080 "$(asgard load iris-classifier)"
    """
    from ..platform import mlflow_server, model_images

    settings = _settings(name)
    with Stages() as stages, mlflow_server.running(settings) as tracking:
        image = model_images.load(settings, tracking, name, version, stages.log)
    note(f"Docker has the image of {name}.")
    typer.echo(image)


def pulumi(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="What `pulumi` is to be called with.", metavar="-- ARGS")
    ] = None,
) -> None:
    """Run plain Pulumi on the models' stacks: in the stacks folder, logged in to the backend, with the passphrase.

    A stack has its model's name. Where there is no Pulumi CLI, one is
    installed first. The exit code is Pulumi's.

    Try:
      asgard pulumi -- stack ls
      asgard pulumi -- preview -s iris-classifier --diff
    """
    from ..platform import engine, engine_install
    from .configuration import load

    settings = load()
    engine.write_project(settings.stacks_dir)
    command = engine_install.find_or_install(settings, lambda line: note(printable(line)))
    line, environment = engine.pulumi_arguments(settings, command, arguments or [])
    os.chdir(settings.stacks_dir)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and what is ignored stays so
    os.execvpe(line[0], line, environment)  # noqa: S606 - no shell is needed


@contextmanager
def _tools(name: str) -> Iterator[tuple["Tools", Stages]]:
    """What operates on models, and the progress on the terminal. Raises CommandFailed for what is no model's name."""
    from ..platform.service import offline

    settings = _settings(name)
    with Stages() as stages, offline(settings, stages.log) as tools:
        yield tools, stages


def _settings(name: str) -> "Settings":
    from .. import logs
    from .configuration import load

    if not naming.is_model_name(name):
        raise CommandFailed(
            "There is no such model", f"{name!r} is no name of a deployed model. `asgard models` lists them.", NOT_FOUND
        )
    logs.configure("warning", "console")
    return load()
