"""The operations over HTTP, as a bare ASGI application: no framework between the socket and the model."""

from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .handlers import Operation
from .problems import Answer, problem
from .queueing import Queue

BODY_LIMIT = 64 * 1024**2
"""Bytes of a request body; a larger one is answered 413."""

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_NOT_FOUND = problem(404, "not_found", "There are POST /predict, GET /health and GET /metadata.")
_TOO_LARGE = problem(
    413,
    "too_large",
    f"The body passes {BODY_LIMIT} bytes. Send fewer rows at a time.",
    headers={b"connection": b"close"},
)


class _TooLarge(Exception):
    pass


class _Gone(Exception):
    pass


class Application:
    """`closing`: while true, every answer asks the client to close its connection, so that the server can drain.

    What is not quick runs in one thread: one predict at a time, as a model need not be thread-safe.
    """

    def __init__(self, operations: Mapping[str, Operation]) -> None:
        self.closing = False
        self._operations = operations
        thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._queues = {path: Queue(op, thread) for path, op in operations.items() if op.model is not None}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI 3 (https://asgi.readthedocs.io/en/latest/specs/www.html)."""
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        try:
            answer = await self._answer(scope, receive)
        except _Gone:
            return
        headers = [
            (b"content-type", answer.content_type),
            (b"content-length", str(len(answer.body)).encode()),
            *answer.headers.items(),
        ]
        if self.closing and b"connection" not in answer.headers:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Message, receive: Receive) -> Answer:
        operation = self._operations.get(scope["path"])
        if operation is None:
            return _NOT_FOUND
        if scope["method"] != operation.method and not (scope["method"] == "HEAD" and operation.method == "GET"):
            return problem(
                405,
                "method_not_allowed",
                f"{scope['path']} takes {operation.method}.",
                headers={b"allow": operation.method.encode()},
            )
        if operation.server is not None:
            return operation.server(b"")
        try:
            body = await _body(scope, receive)
        except _TooLarge:
            return _TOO_LARGE
        return await self._queues[scope["path"]].answer(body)


async def _body(scope: Message, receive: Receive) -> bytes:
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > BODY_LIMIT:
            raise _TooLarge
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        body: bytes = message["body"]
        return body
    chunks = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise _Gone
        chunks += message["body"]
        if len(chunks) > BODY_LIMIT:
            raise _TooLarge
        if not message.get("more_body"):
            return bytes(chunks)
        message = await receive()
