"""The operations over HTTP, as a bare ASGI application: no framework between the socket and the model."""

import itertools
import re
import uuid
import zlib
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import orjson

from .asking import Operation
from .handlers import metrics_operation, not_found, operations, told
from .loaded import LoadedModel
from .messages import Answer, Request
from .metrics import Metrics, SharedNumbers
from .options import NONE_ASKED, Options
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


_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_PREFIX = uuid.uuid4().hex[:16].encode()
_count = itertools.count(1)


class _Refused(Exception):
    def __init__(self, answer: Answer) -> None:
        self.answer = answer


class _Gone(Exception):
    pass


class Application:
    """`closing`: while true, every answer asks the client to close its connection, so that the server can drain.

    What is not quick runs in one thread: one predict at a time, as a model need not be thread-safe.
    """

    def __init__(self, operations: Mapping[str, Operation], metrics: Metrics, options: Options = NONE_ASKED) -> None:
        self.closing = False
        self._metrics = metrics
        self._options = options
        self._operations = operations
        thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._queues = {path: Queue(op, thread, metrics) for path, op in operations.items() if op.model is not None}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI 3 (https://asgi.readthedocs.io/en/latest/specs/www.html)."""
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        began = self._metrics.began()
        asked = dict(scope["headers"])
        try:
            answer = told(scope["path"], await self._answer(scope, asked, receive))
        except _Gone:
            self._metrics.gone()
            return
        except BaseException:
            self._metrics.ended(began, scope["path"], 500)
            raise
        seconds = self._metrics.ended(began, scope["path"], answer.status)
        identifier = request_id(asked)
        headers = [
            (b"content-type", answer.content_type),
            (b"content-length", str(len(answer.body)).encode()),
            (b"x-request-id", identifier),
            *answer.headers.items(),
        ]
        if self._options.access_log:
            _log(scope, asked, answer, seconds, identifier)
        if self._options.cors_origins and b"origin" in asked:
            headers += self._cross_origin(asked[b"origin"])
        if b"traceparent" in asked:
            headers.append((b"traceparent", asked[b"traceparent"]))
        if self.closing and b"connection" not in answer.headers:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _cross_origin(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        """As https://fetch.spec.whatwg.org/#http-cors-protocol has it."""
        allowed = self._options.allowed_origin(origin)
        if allowed is None:
            return [(b"vary", b"origin")]
        return [
            (b"vary", b"origin"),
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", b"x-request-id, traceparent, retry-after"),
        ]

    async def _answer(self, scope: Message, headers: dict[bytes, bytes], receive: Receive) -> Answer:
        path, method = scope["path"], scope["method"]
        operation = self._operations.get(path)
        if operation is None:
            return not_found(path)
        if method == "OPTIONS" and self._options.cors_origins and b"access-control-request-method" in headers:
            return _preflight(operation, headers)
        if method != operation.method and not (method == "HEAD" and operation.method == "GET"):
            return problem(
                405,
                "method_not_allowed",
                f"{path} takes {operation.method}.",
                headers={b"allow": operation.method.encode()},
            )
        if operation.server is not None:
            return operation.server(Request(b"", headers))
        try:
            body = await _body(headers, receive)
        except _Refused as refused:
            return refused.answer
        return await self._queues[path].answer(Request(body, headers))


def of_model(
    model: LoadedModel, options: Options = NONE_ASKED, numbers: SharedNumbers | None = None, row: int = 0
) -> Application:
    """The server of a model. `numbers`, `row`: where it counts, with other workers."""
    answered = operations(model)
    metrics = Metrics(numbers or SharedNumbers(1), row, answered, model.info)
    answered["/metrics"] = metrics_operation(metrics)
    return Application(answered, metrics, options)


def _preflight(operation: Operation, headers: Mapping[bytes, bytes]) -> Answer:
    """What a browser asks before it sends JSON to another site."""
    asked = headers.get(b"access-control-request-headers", b"")
    allowed = {
        b"access-control-allow-methods": operation.method.encode(),
        b"access-control-allow-headers": asked,
        b"access-control-max-age": b"600",
    }
    return Answer(b"", 204, headers={name: value for name, value in allowed.items() if value})


def _log(scope: Message, asked: Mapping[bytes, bytes], answer: Answer, seconds: float, identifier: bytes) -> None:
    told = {
        "time": datetime.now(timezone.utc).isoformat(),  # noqa: UP017 - models run on older Pythons, too
        "method": scope["method"],
        "path": scope["path"],
        "status": answer.status,
        "bytes": len(answer.body),
        "seconds": round(seconds, 6),
        "request_id": identifier.decode(),
    }
    if b"traceparent" in asked:
        told["traceparent"] = asked[b"traceparent"].decode("latin-1")
    print(orjson.dumps(told).decode(), flush=True)  # noqa: T201 - standard output is the model's log


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
