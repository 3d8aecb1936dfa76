"""`platform up`: what models share on a cluster."""

import typer

from . import help_text
from .failures import INTERRUPTED
from .output import Stages, note

_VARIABLES = (
    "ASGARD_REGISTRY", "ASGARD_NAMESPACE", "ASGARD_KUBE_CONTEXT", "ASGARD_PULL_USERNAME", "ASGARD_PULL_PASSWORD",
    "ASGARD_DATA_DIR", "ASGARD_STACKS_DIR", "ASGARD_BACKEND_URL",
)  # fmt: skip


def add_commands(app: typer.Typer) -> None:
    platform = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    platform.callback()(_platform)
    platform.command(epilog=help_text.epilog(0, 1, 2, 5, INTERRUPTED, variables=_VARIABLES))(up)
    app.add_typer(platform, name="platform")


def _platform() -> None:
    """What the models of a cluster share: a Pulumi stack of its own, named platform."""


def up() -> None:
    """Bring up the namespace and the pull secret that models on a cluster share, or make them what the settings say.

    The first deploy to a cluster does it too. Take it down, after all
    models, with `asgard pulumi -- destroy -s platform`.

    Try:
      ASGARD_REGISTRY=ecr asgard platform up
    """
    from .. import logs
    from ..platform import shared_stack
    from ..platform.service import offline_engine
    from .configuration import load

    logs.configure("warning", "console")
    settings = load()
    with Stages() as stages, offline_engine(settings, stages.log) as engine:
        shared_stack.up(settings, engine, stages.log)
    note(f"The namespace {settings.namespace} is ready for models.")
