"""`models`, `model` and `status`: what the API tells."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import naming
from . import help_text
from .output import print_json, print_table

if TYPE_CHECKING:
    from ..client import Client

_VARIABLES = ("ASGARD_URL", "ASGARD_API_TOKEN")

Json = Annotated[bool, typer.Option("--json", help="Print the API's answer as JSON.")]


def add_commands(app: typer.Typer) -> None:
    app.command(epilog=help_text.epilog(0, 1, 2, 3, variables=_VARIABLES))(models)
    app.command(epilog=help_text.epilog(0, 1, 2, 3, 4, variables=_VARIABLES))(model)
    app.command(epilog=help_text.epilog(0, 1, 2, 3, variables=_VARIABLES))(status)


def models(as_json: Json = False) -> None:
    """List the registered models: their newest version, where they answer, when they changed last.

    Try:
      asgard models --json | jq -r '.[].name'
    """
    with _api() as api:
        found = [one.model_dump(mode="json") for one in api.models()]
    if as_json:
        print_json(found)
        return
    print_table(
        ("NAME", "LATEST", "ANSWERS AT", "UPDATED", "TAGS"),
        ((one["name"], one["latest_version"], _url(one), one["last_updated_timestamp"], _tags(one)) for one in found),
    )


def model(name: Annotated[str, typer.Argument(help="The model's name.")], as_json: Json = False) -> None:
    """Show one registered model: where it answers, its tags and its versions, newest first.

    The stage Production is of the version that serves.

    Try:
      asgard model iris-classifier
    """
    with _api() as api:
        found = api.model(name).model_dump(mode="json")
    if as_json:
        print_json(found)
        return
    print_table(
        ("NAME", "ANSWERS AT", "DEPLOYMENT", "CREATED", "TAGS"),
        [
            (
                found["name"],
                _url(found),
                found["tags"].get(naming.TAG_DEPLOYMENT_ID, "-"),
                found["creation_timestamp"],
                _tags(found),
            )
        ],
    )
    if found["description"]:
        typer.echo()
        print_table(("DESCRIPTION",), [(found["description"],)])
    typer.echo()
    print_table(
        ("VERSION", "STAGE", "STATUS", "CREATED", "RUN"),
        (
            (one["version"], one["current_stage"], one["status"], one["creation_timestamp"], one["run_id"])
            for one in found["versions"]
        ),
    )


def status(as_json: Json = False) -> None:
    """Show how MLflow, Feast and the deployment service are, and where.

    Try:
      asgard status --json | jq -e .deployment_service_ready
    """
    with _api() as api:
        found = api.status().model_dump(mode="json")
    if as_json:
        print_json(found)
        return
    ready = "ready to deploy" if found["deployment_service_ready"] else "not ready to deploy"
    print_table(
        ("PART", "STATUS", "WHERE"),
        [
            ("mlflow", found["mlflow_status"], found["mlflow_uri"]),
            ("feast", found["feast_status"], found["feast_repo_path"]),
            ("deployment service", found["deployment_service_status"], ready),
        ],
    )


def _api() -> AbstractContextManager["Client"]:
    from .client import connect
    from .configuration import load

    return connect(load())


def _url(model: dict[str, Any]) -> str:
    return str(model["tags"].get(naming.TAG_INFERENCE_URL, "-"))


def _tags(model: dict[str, Any]) -> str:
    """The tags that are not Asgard's own."""
    own = ("asgard.", "mlflow.")
    return " ".join(f"{key}={value}" for key, value in model["tags"].items() if not key.startswith(own)) or "-"
