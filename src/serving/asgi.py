"""The operations over HTTP, as a bare ASGI application: no framework between the socket and the model."""

import itertools
import re
import uuid
import zlib
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .handlers import Operation, not_found, told
from .messages import Answer, Request
from .problems import problem
from .queueing import Queue

BODY_LIMIT = 64 * 1024**2
"""Bytes of a request body; a larger one is answered 413."""

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_TOO_LARGE = problem(
    413,
    "too_large",
    f"The body passes {BODY_LIMIT} bytes. Send fewer rows at a time.",
    headers={b"connection": b"close"},
)


_CONTENT_CODED = {b"gzip": 31, b"x-gzip": 31, b"deflate": 47}
"""Window bits as zlib takes them (https://docs.python.org/3/library/zlib.html#zlib.decompress)."""


class _Refused(Exception):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer


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
        asked = dict(scope["headers"])
        try:
            answer = told(scope["path"], await self._answer(scope, asked, receive))
        except _Gone:
            return
        headers = [
            (b"content-type", answer.content_type),
            (b"content-length", str(len(answer.body)).encode()),
            (b"x-request-id", request_id(asked)),
            *answer.headers.items(),
        ]
        if b"traceparent" in asked:
            headers.append((b"traceparent", asked[b"traceparent"]))
        if self.closing and b"connection" not in answer.headers:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Message, headers: dict[bytes, bytes], receive: Receive) -> Answer:
        path, method = scope["path"], scope["method"]
        operation = self._operations.get(path)
        if operation is None:
            return not_found(path)
        if method != operation.method and not (method == "HEAD" and operation.method == "GET"):
            return problem(
                405,
                "method_not_allowed",
                f"{path} takes {operation.method}.",
                headers={b"allow": operation.method.encode()},
            )
        if operation.server is not None:
            return operation.server(Request(b"", headers, scope["query_string"]))
        try:
            body = await _body(headers, receive)
        except _Refused as refused:
            return refused.answer
        return await self._queues[path].answer(Request(body, headers, scope["query_string"]))


_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_PREFIX = uuid.uuid4().hex[:16].encode()
_count = itertools.count(1)


def request_id(headers: Mapping[bytes, bytes]) -> bytes:
    """The client's own, else a new one."""
    found = headers.get(b"x-request-id")
    if found is not None and _REQUEST_ID.fullmatch(found):
        return found
    return b"%s-%x" % (_PREFIX, next(_count))


async def _body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    """Raises _Refused, or _Gone."""
    length = headers.get(b"content-length")
    if length is not None and int(length) > BODY_LIMIT:
        raise _Refused(_TOO_LARGE)
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        body: bytes = message["body"]
    else:
        body = await _rest(message, receive)
    coding = headers.get(b"content-encoding")
    return body if coding is None else _decompressed(body, coding.strip().lower())


async def _rest(message: Message, receive: Receive) -> bytes:
    chunks = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise _Gone
        chunks += message["body"]
        if len(chunks) > BODY_LIMIT:
            raise _Refused(_TOO_LARGE)
        if not message.get("more_body"):
            return bytes(chunks)
        message = await receive()


def _decompressed(body: bytes, coding: bytes) -> bytes:
    """Content codings as in https://www.rfc-editor.org/rfc/rfc9110#name-content-codings. Raises _Refused."""
    if coding == b"identity":
        return body
    if coding not in _CONTENT_CODED:
        raise _Refused(
            problem(
                415,
                "unknown_content_encoding",
                f"The body's Content-Encoding {coding.decode('latin-1')!r} is none of gzip and deflate.",
                headers={b"accept-encoding": b"gzip, deflate"},
            )
        )
    try:
        try:
            content = _inflate(body, _CONTENT_CODED[coding])
        except zlib.error:
            if coding != b"deflate":
                raise
            content = _inflate(body, -zlib.MAX_WBITS)  # as some clients take the name to mean
    except zlib.error as error:
        told = f"The body is not {coding.decode()}: {error}."
        raise _Refused(problem(400, "not_compressed", told)) from error
    return content


def _inflate(body: bytes, window_bits: int) -> bytes:
    inflater = zlib.decompressobj(window_bits)
    content = inflater.decompress(body, BODY_LIMIT + 1)
    if len(content) > BODY_LIMIT:
        raise _Refused(_TOO_LARGE)
    if not inflater.eof:
        raise zlib.error("it is cut off")
    return content
