"""The routes. HTTP only: what is asked for is decided in the platform."""

import asyncio
from email.message import Message
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from .. import errors
from ..answers import DeployAnswer, ModelAnswer, ModelWithVersions, StatusAnswer, VersionAnswer
from ..progress import OnProgress, Progress
from ..settings import Settings
from .errors import HostNotAllowed, InternalError, InvalidFields, UnsupportedContent
from .metrics import CONTENT_TYPE, Metrics
from .openapi import EVENTS_EXAMPLE, REQUEST_BODY, problems
from .parsing import parse
from .streaming import EventStream, ProgressBuffer, events, wants_events
from .threads import run_in_thread

if TYPE_CHECKING:
    from ..platform.service import Platform

_ANYWHERE = (HostNotAllowed, InternalError)
_UNDER_MLOPS = (*_ANYWHERE, errors.Unauthorized)
_DEPLOY = (
    errors.DeployInProgress, errors.DiskFull, errors.EngineMissing, errors.EnvironmentUnavailable,
    errors.InfrastructureFailed, errors.InfrastructureTimeout, errors.NoModelLogged, errors.RequestTooLarge,
    errors.RequirementsConflict, errors.ScriptFailed, errors.ScriptOutOfMemory, errors.ScriptTimeout,
    errors.TooManyDeploys, errors.TrackingUnavailable, InvalidFields, UnsupportedContent,
)  # fmt: skip


def mlops(platform: "Platform", settings: Settings, metrics: Metrics) -> APIRouter:
    """The four endpoints under /mlops."""
    router = APIRouter(prefix="/mlops", tags=["mlops"])

    @router.post(
        "/deploy",
        summary="Train, register and serve",
        response_model=DeployAnswer,
        responses={
            200: {
                "description": "The model answers at `inference_url`. With `Accept: text/event-stream`: events.",
                "content": {"text/event-stream": {"schema": {"type": "string"}, "example": EVENTS_EXAMPLE}},
            },
            **problems(*_UNDER_MLOPS, *_DEPLOY),
        },
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    async def deploy(request: Request) -> DeployAnswer | EventStream:
        """Runs the script, registers the model it logs, brings up the model's stack; answers when the model does.

        A client that goes away changes nothing: the deploy is finished. With `Accept: text/event-stream` the answer
        begins at once: `stage` events `{stage, message}`, `log` events `{stage, line}`, a comment every 15 s of
        silence, and last `result` with the answer or `error` with the problem, its `status` included.
        """
        _check_content(request)
        asked = await asyncio.to_thread(parse, await _read(request, settings.max_request_bytes))

        def work(on_progress: OnProgress) -> DeployAnswer:
            with metrics.deploy(on_progress) as heard:
                return DeployAnswer.model_validate(platform.deploy(asked, heard))

        thread = f"deploy-{asked.model_name}"
        if wants_events(request.headers.get("accept", "")):
            buffer = ProgressBuffer(asyncio.get_running_loop())
            return EventStream(events(buffer, run_in_thread(partial(work, buffer.add), thread)))
        return await run_in_thread(partial(work, _unheard), thread)

    @router.get(
        "/models", summary="All registered models", responses=problems(*_UNDER_MLOPS, errors.TrackingUnavailable)
    )
    def models() -> list[ModelAnswer]:
        return [ModelAnswer.model_validate(model) for model in platform.models()]

    @router.get(
        "/models/{name:path}",  # MLflow's own models may hold slashes
        summary="A registered model and its versions",
        responses=problems(*_UNDER_MLOPS, errors.ModelNotFound, errors.TrackingUnavailable),
    )
    def model(name: str) -> ModelWithVersions:
        if not name:
            raise errors.ModelNotFound(name)
        found, versions = platform.model(name)
        return ModelWithVersions(
            **ModelAnswer.model_validate(found).model_dump(),
            versions=[VersionAnswer.model_validate(one) for one in versions],
        )

    @router.get("/status", summary="How Asgard and what it stands on are", responses=problems(*_UNDER_MLOPS))
    async def status() -> StatusAnswer:  # async: instant, and answered even when every thread waits for MLflow
        return StatusAnswer.model_validate(platform.status())

    return router


def about(metrics: Metrics) -> APIRouter:
    """What answers outside /mlops: to anybody, but for the metrics."""
    router = APIRouter(tags=["about"])

    @router.head("/", include_in_schema=False)
    @router.get("/", summary="What this is", responses=problems(*_ANYWHERE))
    async def root() -> dict[str, Any]:
        return {
            "name": "Asgard",
            "description": "One REST call with a training script in, a live inference URL out.",
            "version": version("asgard"),
            "links": {
                "deploy": "/mlops/deploy",
                "models": "/mlops/models",
                "status": "/mlops/status",
                "health": "/health",
                "metrics": "/metrics",
                "docs": "/docs",
                "openapi": "/openapi.json",
            },
        }

    @router.head("/health", include_in_schema=False)  # with which load balancers ask
    @router.get("/health", summary="Whether the API answers", responses=problems(*_ANYWHERE))
    async def health() -> dict[str, str]:
        """Of the API alone; `/mlops/status` tells about MLflow, Feast and deploys."""
        return {"status": "ok"}

    @router.get(
        "/metrics",
        summary="What Prometheus scrapes",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **problems(*_UNDER_MLOPS),
        },
    )
    def exposed() -> Response:
        """Deploys by stage and result, seconds of each stage, deploys under way and waiting, and the API's process.

        Needs the token, as /mlops does: Prometheus sends it with `authorization: {credentials: ...}`.
        """
        return Response(metrics.exposed(), media_type=CONTENT_TYPE)

    return router


def _unheard(_: Progress) -> None: ...


def _check_content(request: Request) -> None:
    """Only plain JSON: a page on another site cannot send that without asking first, and nobody answers it yes."""
    declared = Message()
    declared["Content-Type"] = request.headers.get("content-type", "")
    charset = str(declared.get_param("charset", "utf-8")).lower()
    if declared.get_content_type() != "application/json" or charset not in _UTF8:
        raise UnsupportedContent("Send the body as `Content-Type: application/json`, in UTF-8.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedContent("Send the body uncompressed, without a Content-Encoding header.")


_UTF8 = ("utf-8", "utf8")


async def _read(request: Request, limit: int) -> bytes:
    """The body. Raises RequestTooLarge at the first byte past `limit`, or before any where the length is declared."""
    too_large = errors.RequestTooLarge(f"The body passes {limit} bytes, the limit set by ASGARD_MAX_REQUEST_BYTES.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)
