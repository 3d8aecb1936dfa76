"""`deploy`: a script to the API, its progress to the terminal, the URL to the standard output."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import help_text
from .failures import INTERRUPTED
from .output import Stages, note, printable

if TYPE_CHECKING:
    from ..client import DeployAnswer
    from ..client.deploys import DeployOptions


def add_commands(app: typer.Typer) -> None:
    app.command(epilog=help_text.epilog(0, 1, 2, 3, 5, INTERRUPTED, variables=("ASGARD_URL", "ASGARD_API_TOKEN")))(
        deploy
    )


def deploy(
    script: Annotated[
        Path, typer.Argument(help="The training script, which logs a model with MLflow.", exists=True, dir_okay=False)
    ],
    name: Annotated[str, typer.Option("--name", help="The model's name: a-z, 0-9 and -, at most 53 characters.")],
    requirement: Annotated[
        list[str],
        typer.Option("-r", "--requirement", help="A package it needs, such as scikit-learn==1.3.0.", metavar="REQ"),
    ] = [],  # noqa: B006 - typer makes a new list of it
    requirements_file: Annotated[
        Path | None,
        typer.Option(help="A file with a package a line; # begins a comment.", exists=True, dir_okay=False),
    ] = None,
    env: Annotated[
        list[str], typer.Option(help="An environment variable of script and server; kept encrypted.", metavar="K=V")
    ] = [],  # noqa: B006
    tag: Annotated[list[str], typer.Option(help="A tag of the registered model.", metavar="K=V")] = [],  # noqa: B006
    experiment: Annotated[str | None, typer.Option(help="MLflow experiment.", show_default="the model's name")] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Processes that serve.", show_default="as before, else 1")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Memory of each, such as 512Mi.", metavar="QUANTITY", show_default="as before, else 2Gi"),
    ] = None,
    cpu: Annotated[
        str | None,
        typer.Option(help="CPU of each, such as 500m.", metavar="QUANTITY", show_default="as before, else 1000m"),
    ] = None,
) -> None:
    """Train a model with SCRIPT, register it and bring it up; print the URL at which it answers.

    Progress and the script's output go to the standard error as they come;
    the standard output gets the URL alone. If a deploy fails, what served
    before keeps serving. Environment, replicas, memory and CPU that are not
    given stay as the deploy before, or an edit of the stack file, left them.

    Try:
      URL=$(asgard deploy train.py --name iris -r mlflow -r scikit-learn==1.3.0)
      curl $URL/predict --json '{"data": [[0.1, -0.2, 0.3, 0.4, -0.5]]}'
    """
    from ..client.deploys import DeployOptions

    answer = _deploy(
        script,
        name,
        DeployOptions(
            requirements=_requirements(requirement) + (_from_file(requirements_file) if requirements_file else []),
            experiment=experiment,
            environment=_pairs(env, "--env"),
            tags=_pairs(tag, "--tag"),
            replicas=replicas,
            memory=memory,
            cpu=cpu,
        ),
    )
    note(
        f"{printable(answer.model_name)} version {answer.model_version} answers after "
        f"{answer.deployment_time_seconds:.1f} s; POST rows to {printable(answer.endpoints.predict)}"
    )
    typer.echo(answer.inference_url)


def _deploy(script: Path, name: str, options: "DeployOptions") -> "DeployAnswer":
    """The API's answer to the deploy, whose events are shown as they come."""
    from . import client
    from .configuration import load

    stages = Stages()
    try:
        with client.connect(load()) as api, stages:
            return api.deploy(script, name=name, on_progress=stages.on_progress, **options)
    except KeyboardInterrupt:
        how = "The deploy goes on at the server" if stages.began else "If the API has taken the deploy, it goes on"
        note(f"Interrupted. {how}; `asgard model {name}` shows how it ends.")
        raise typer.Exit(INTERRUPTED) from None


def _requirements(given: Sequence[str]) -> list[str]:
    for text in given:
        # PyPI has a package named requirements.txt, which nobody wants.
        if text.endswith(".txt"):
            raise typer.BadParameter(
                f"{text} is a file; a package is wanted here. Use --requirements-file {text}.", param_hint="-r"
            )
    return list(given)


def _from_file(path: Path) -> list[str]:
    """The requirements in a file of pip's format, options and continued lines excepted."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path} is not UTF-8 text.", param_hint="--requirements-file") from None
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        requirement = "" if line.lstrip().startswith("#") else line.split(" #")[0].strip()
        if requirement.startswith("-") or requirement.endswith("\\"):
            raise typer.BadParameter(
                f"{path}, line {number}: only names and versions are allowed, such as scikit-learn==1.3.0.",
                param_hint="--requirements-file",
            )
        if requirement:
            found.append(requirement)
    return found


def _pairs(given: Sequence[str], option: str) -> dict[str, str] | None:
    pairs: dict[str, str] = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise typer.BadParameter("must be of the form NAME=VALUE.", param_hint=option)  # may be a secret: not shown
        if key in pairs:
            raise typer.BadParameter(f"{key} is given twice.", param_hint=option)
        pairs[key] = value
    return pairs or None
