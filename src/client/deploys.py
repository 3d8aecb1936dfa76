"""A deploy as the API takes it, and what its events say."""

import base64
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypedDict

import httpx
from httpx_sse import EventSource, ServerSentEvent
from pydantic import ValidationError

from ..answers import DeployAnswer, Problem
from ..progress import Progress
from .errors import OutOfSight, answered
from .sources import Source, script
from .transport import CONNECT_SECONDS, SILENCE_SECONDS

TIMEOUT: Final = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)


class DeployOptions(TypedDict, total=False):
    """What may be said of a deploy. What is not, or is None, stays as the deploy before left it, or is the default.

    `requirements`: names and versions (PEP 508). `script_name`, `experiment`: by default the file's or function's and
    the model's name. `environment`: variables of script and server, kept encrypted. `tags`: in MLflow.
    `replicas`, `memory` ("512Mi"), `cpu` ("500m"): how many serve, and how much each may use.
    """

    requirements: Sequence[str] | None
    script_name: str | None
    experiment: str | None
    environment: Mapping[str, str] | None
    tags: Mapping[str, str] | None
    replicas: int | None
    memory: str | None
    cpu: str | None


def body(source: Source, name: str, options: DeployOptions) -> dict[str, Any]:
    """The JSON of the request. Raises what `sources.script` raises, and TypeError for what is no option."""
    for unknown in options.keys() - DeployOptions.__annotations__.keys():
        raise TypeError(f"deploy() got an unexpected keyword argument {unknown!r}")
    requirements = options.get("requirements") or ()
    if isinstance(requirements, str):  # which is a sequence of strings, too: of its letters
        raise TypeError(f"requirements must be a list of strings, such as [{requirements!r}]")
    file_name, content = script(source)
    limits = {
        "replicas": options.get("replicas"), "memory_limit": options.get("memory"), "cpu_limit": options.get("cpu")
    }  # fmt: skip
    optional = {
        "environment_vars": options.get("environment"),
        "tags": options.get("tags"),
        "deployment_config": _given(limits) or None,
    }
    return {
        "script_content": base64.b64encode(content).decode(),
        "script_name": options.get("script_name") or file_name,
        "experiment_name": options.get("experiment") or name,
        "model_name": name,
        "requirements": list(requirements),
        **_given(optional),
    }


def told(source: EventSource, model: str, url: str) -> Iterator[Progress | DeployAnswer]:
    """Progress, and last the answer. Raises ProblemAnswered when the deploy failed, OutOfSight."""
    with _in_sight(model, url):
        yield from filter(None, map(_read, source.iter_sse()))


async def told_async(source: EventSource, model: str, url: str) -> AsyncIterator[Progress | DeployAnswer]:
    """`told` of an AsyncClient's answer."""
    with _in_sight(model, url):
        async for event in source.aiter_sse():
            if (read := _read(event)) is not None:
                yield read


def ended(model: str) -> OutOfSight:
    """The events ended without the answer among them."""
    return OutOfSight(model, "The API ended the connection before the deploy had ended.")


@contextmanager
def _in_sight(model: str, url: str) -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException:
        raise OutOfSight(model, f"{url} has been silent for {SILENCE_SECONDS} s.") from None
    except httpx.TransportError as error:
        raise OutOfSight(model, f"The connection to {url} broke: {error or type(error).__name__}.") from None
    except (json.JSONDecodeError, KeyError, ValidationError):
        raise OutOfSight(model, f"What {url} tells is not understood.") from None


def _read(event: ServerSentEvent) -> Progress | DeployAnswer | None:
    match event.event:
        case "result":
            return DeployAnswer.model_validate_json(event.data)
        case "error":
            raise answered(Problem.model_validate_json(event.data))
        case "stage" | "log" as kind:
            data = json.loads(event.data)
            return Progress(data["stage"], kind, data["message" if kind == "stage" else "line"])
    return None


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
