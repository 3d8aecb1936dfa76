"""The API, as commands call it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .failures import UNREACHABLE, USAGE, CommandFailed, ProblemAnswered

if TYPE_CHECKING:
    from ..client import Client
    from ..settings import Settings


@contextmanager
def connect(settings: "Settings") -> Iterator["Client"]:
    """A client of the API. What it raises leaves the block as CommandFailed or ProblemAnswered."""
    from .. import client

    token = settings.api_token.get_secret_value() if settings.api_token else ""
    try:
        api = client.Client(settings.url, token)
    except ValueError as error:
        raise CommandFailed("A setting is not valid", f"ASGARD_URL or ASGARD_API_TOKEN: {error}.", USAGE) from None
    with api:
        try:
            yield api
        except client.ProblemAnswered as error:
            raise ProblemAnswered(error.problem.model_dump(exclude_none=True)) from None
        except client.OutOfSight as error:
            raise CommandFailed(
                "The deploy is out of sight",
                f"{error.why}\nA server that still runs finishes it, one that was stopped puts back what was, at its "
                f"next start. `asgard model {error.model}` shows which version serves.",
                UNREACHABLE,
            ) from None
        except client.ClientError as error:
            raise CommandFailed(
                "The API cannot be reached",
                f"{error.message}\nStart it with `asgard serve`, or set ASGARD_URL to where it runs.",
                UNREACHABLE,
            ) from None
