"""One log line a request, and the last net under it."""

import time
import uuid
from typing import Any
from urllib.parse import quote

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import problem_response

_log: Any = structlog.get_logger("asgard.api")


class AccessLog:
    """ASGI middleware, the outermost: gives each request an id, logs it without body, query or headers.

    The id is in the header X-Request-ID and in every log line of the request, those of its deploy too. An exception
    that nobody caught is logged under it and answered with a problem that names it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex[:16]
        began = time.perf_counter()
        status = 0  # of an answer that never began

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as error:
                answer = problem_response(error)
                if not status:
                    await answer(scope, receive, send_with_id)
            finally:
                _log.info(
                    "request",
                    method=scope["method"],
                    path=quote(scope["path"]),
                    status=status,
                    seconds=round(time.perf_counter() - began, 4),
                )
