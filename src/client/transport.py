"""What both clients do with an address, a request and an answer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from ..answers import ModelAnswer, ModelWithVersions, StatusAnswer
from ..naming import TAG_INFERENCE_URL
from .errors import ModelProblem, NotAsgard, NotServing, Unreachable, answered


class Predictions(BaseModel):
    """What a model answers."""

    predictions: Any


DEFAULT_URL: Final = "http://127.0.0.1:8000"

CONNECT_SECONDS: Final = 10
ANSWER_SECONDS: Final = 60
SILENCE_SECONDS: Final = 60
"""Longest silence in a stream of events; the API sends a heartbeat each 15 s."""

JSON: Final = {"Content-Type": "application/json"}

MODELS: Final = TypeAdapter(list[ModelAnswer])
MODEL: Final = TypeAdapter(ModelWithVersions)
STATUS: Final = TypeAdapter(StatusAnswer)
PREDICTIONS: Final = TypeAdapter(Predictions)

_Answer = TypeVar("_Answer")

_LOCAL: Final = ("localhost", "127.", "::1")


def address(url: str | None) -> str:
    """`url`, else ASGARD_URL, else the default. Raises ValueError for what is no http:// or https:// address."""
    chosen = url or os.environ.get("ASGARD_URL") or DEFAULT_URL
    try:
        parsed = httpx.URL(chosen)
    except httpx.InvalidURL as error:
        raise ValueError(f"{chosen!r} is no address: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{chosen!r} is not an http:// or https:// address, such as {DEFAULT_URL}")
    return chosen.rstrip("/")


def bearer(token: str | None) -> dict[str, str]:
    """The header with `token`, else ASGARD_API_TOKEN; an empty one is none. Raises ValueError where none holds it."""
    chosen = (os.environ.get("ASGARD_API_TOKEN", "") if token is None else token).strip()
    if not chosen:
        return {}
    if not (chosen.isascii() and chosen.isprintable()):
        raise ValueError("The API's token has characters beyond printable ASCII, which a header cannot carry")
    return {"Authorization": f"Bearer {chosen}"}


def options(url: str, headers: dict[str, str], seconds: float) -> dict[str, Any]:
    """Arguments of an httpx client for the server at `url`. `seconds`: for an answer."""
    return {
        "base_url": url,
        "headers": headers,
        "timeout": httpx.Timeout(seconds, connect=CONNECT_SECONDS),
        "trust_env": not httpx.URL(url).host.startswith(_LOCAL),  # a proxy does not know this machine's loopback
    }


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Failures to reach the server leave the block as Unreachable."""
    try:
        yield
    except httpx.ConnectError as error:
        raise Unreachable(f"Nothing answers at {url}: {error}.") from None
    except httpx.TimeoutException:
        raise Unreachable(f"{url} does not answer in time.") from None
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise Unreachable(f"The connection to {url} broke: {error or type(error).__name__}.") from None


def mlops(*segments: str) -> str:
    """A path below /mlops; each segment is quoted, slashes too."""
    return "/".join(["/mlops", *(quote(segment, safe="") for segment in segments)])


def parsed(response: httpx.Response, answer: TypeAdapter[_Answer]) -> _Answer:
    """The content of an answer. Raises ProblemAnswered, NotAsgard."""
    check(response)
    try:
        return answer.validate_json(response.content)
    except ValidationError:
        raise _not_asgard(response) from None


def check(response: httpx.Response) -> None:
    """Raises ProblemAnswered for a read answer that is an error, NotAsgard for an error that is none of Asgard's."""
    if response.is_success:
        return
    if _media_type(response) != "application/problem+json":
        raise _not_asgard(response)
    try:
        problem = ModelProblem.model_validate_json(response.content)
    except ValidationError:
        raise _not_asgard(response) from None
    wait = response.headers.get("Retry-After", "")
    if problem.retry_after is None and wait.isdigit():
        problem = problem.model_copy(update={"retry_after": int(wait)})
    raise answered(problem)


def is_stream(response: httpx.Response) -> bool:
    """Whether the answer is a stream of events."""
    return _media_type(response) == "text/event-stream"


def refuse(response: httpx.Response) -> NoReturn:
    """Raises what `check` does, and NotAsgard for what else is no stream of events."""
    check(response)
    raise _not_asgard(response)


def _media_type(response: httpx.Response) -> str:
    declared: str = response.headers.get("content-type", "")
    return declared.partition(";")[0].strip().lower()


def server_of(model: str) -> str | None:
    """The base of a model's URL, given that or the one of its endpoint `predict`; None for a name."""
    return address(model.rstrip("/").removesuffix("/predict")) if "://" in model else None


def server_of_registered(model: ModelAnswer) -> str:
    """Where it answers. Raises NotServing."""
    url = model.tags.get(TAG_INFERENCE_URL)
    if url is None:
        raise NotServing(f"Nothing serves {model.name!r}: it is registered, and not deployed by Asgard.")
    return address(url)


def _not_asgard(response: httpx.Response) -> NotAsgard:
    return NotAsgard(f"What answers at {response.url} is not Asgard (HTTP {response.status_code}).")
