"""The API, as commands call it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from .failures import UNREACHABLE, USAGE, CommandFailed, ProblemAnswered

if TYPE_CHECKING:
    import httpx

    from ..settings import Settings

_CONNECT_SECONDS: Final = 10
_ANSWER_SECONDS: Final = 60
SILENCE_SECONDS: Final = 60
"""Longest silence in a stream of events; the API sends a heartbeat each 15 s."""

_LOCAL: Final = ("localhost", "127.", "::1")


def get(settings: "Settings", path: str, *segments: str) -> Any:
    """JSON of a GET below `/mlops`; `segments` are quoted. Raises CommandFailed, ProblemAnswered."""
    with connect(settings) as client:
        response = client.get("/".join([f"/mlops/{path}", *(quote(segment, safe="") for segment in segments)]))
        check(response)
        try:
            return response.json()
        except ValueError:
            raise _not_asgard(response) from None


@contextmanager
def connect(settings: "Settings") -> Iterator["httpx.Client"]:
    """A client of the API; failures to reach it leave the block as CommandFailed."""
    import httpx

    headers = {}
    if settings.api_token is not None and (token := settings.api_token.get_secret_value()):
        headers["Authorization"] = f"Bearer {token}"
    try:
        url = httpx.URL(settings.url)
        if url.scheme not in ("http", "https") or not url.host:
            raise httpx.InvalidURL("it is not an http:// or https:// address")
        with httpx.Client(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
            trust_env=not url.host.startswith(_LOCAL),  # a proxy does not know this machine's loopback
        ) as client:
            yield client
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        raise CommandFailed(
            "A setting is not valid", f"ASGARD_URL is {settings.url!r}: {error}. Such as http://127.0.0.1:8000.", USAGE
        ) from None
    except httpx.ConnectError as error:
        raise _unreachable(f"Nothing answers at {settings.url}: {error}.") from None
    except httpx.TimeoutException:
        raise _unreachable(f"{settings.url} does not answer in time.") from None
    except httpx.TransportError as error:
        raise _unreachable(f"The connection to {settings.url} broke: {error or type(error).__name__}.") from None


def check(response: "httpx.Response") -> None:
    """Raises ProblemAnswered for an answer that is an error, CommandFailed for one that is not Asgard's."""
    if response.is_success:
        return
    response.read()
    if response.headers.get("content-type", "").partition(";")[0] != "application/problem+json":
        raise _not_asgard(response)
    raise ProblemAnswered(response.json())


def _unreachable(message: str) -> CommandFailed:
    return CommandFailed(
        "The API cannot be reached",
        f"{message}\nStart it with `asgard serve`, or set ASGARD_URL to where it runs.",
        UNREACHABLE,
    )


def _not_asgard(response: "httpx.Response") -> CommandFailed:
    return _unreachable(f"What answers at {response.url} is not Asgard (HTTP {response.status_code}).")
