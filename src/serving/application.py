"""What is answered to a request of HTTP: by which operation, and with which headers."""

import itertools
import re
import sys
import uuid
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from http import HTTPStatus

import orjson

from .asking import Operation
from .handlers import metrics_operation, not_found, operations
from .loaded import LoadedModel
from .messages import Answer, Request
from .metrics import Metrics, SharedNumbers
from .options import NONE_ASKED, Options
from .problems import problem
from .queueing import Done, Queue
from .tracing import Traces

BODY_LIMIT = 64 * 1024**2
"""Bytes of a request body; a larger one is answered 413."""

TOO_LARGE = problem(413, "too_large", f"The body passes {BODY_LIMIT} bytes. Send fewer rows at a time.")

_EITHER = 47
_CONTENT_CODED = {b"gzip": 31, b"x-gzip": 31, b"deflate": _EITHER}
"""Window bits as zlib takes them (https://docs.python.org/3/library/zlib.html#zlib.decompress)."""

_MOST_INFLATED = 1032
"""Bytes of one compressed byte, at most (https://zlib.net/zlib_tech.html)."""

_PIECE = 4096
"""Bytes that are inflated at once: what follows a member in them is copied, for each of what may be millions."""

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")


class Refused(Exception):
    """A request that is answered without anybody being asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


@dataclass(slots=True)
class Exchange:
    """A request, and what its answer depends on. `headers`: names in lower case; `began`: when its head had come.

    `keep`: whether its client may send others on the connection; `refusal`: its answer, where nobody is to be asked.
    """

    method: str
    path: str
    headers: dict[bytes, bytes]
    began: float
    body: bytes = b""
    keep: bool = False
    refusal: Answer | None = None


class Application:
    """What can be asked on one port. What is not quick runs in one thread: a model need not be thread-safe."""

    def __init__(
        self,
        operations: Mapping[str, Operation],
        metrics: Metrics,
        options: Options = NONE_ASKED,
        traces: Traces | None = None,
    ) -> None:
        self.metrics = metrics
        self._traces = traces
        self._options = options
        # Of this process: other workers are forked from the same one.
        self._ids, self._count = uuid.uuid4().hex[:16].encode(), itertools.count(1)
        self._operations = operations
        thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._queues = {path: Queue(op, thread, metrics) for path, op in operations.items() if op.model is not None}

    def ask(self, exchange: Exchange, done: Done, *, alone: bool) -> None:
        """Call `done`, now or later, with the answer. `alone`: whether there is no other client."""
        path, method, headers = exchange.path, exchange.method, exchange.headers
        operation = self._operations.get(path)
        if operation is None:
            done(not_found(path))
        elif method == "OPTIONS" and self._options.cors_origins and b"access-control-request-method" in headers:
            done(_preflight(operation, headers))
        elif method != operation.method and not (method == "HEAD" and operation.method == "GET"):
            allowed = {b"allow": operation.method.encode()}
            done(problem(405, "method_not_allowed", f"{path} takes {operation.method}.", headers=allowed))
        elif operation.server is not None:
            done(operation.server(Request(b"", headers)))
        else:
            body, coding = exchange.body, headers.get(b"content-encoding")
            if coding is not None:
                try:
                    body = _decompressed(body, coding.strip().lower())
                except Refused as refused:
                    done(refused.answer)
                    return
            self._queues[path].ask(Request(body, headers), done, alone=alone)

    def close(self) -> None:
        """Send what there is left to tell of what was asked."""
        if self._traces is not None:
            self._traces.close()

    def head(self, exchange: Exchange, answer: Answer, date: bytes, *, close: bool) -> bytes:
        """All that goes before the answer's body; the exchange is counted and logged as ended."""
        asked = exchange.headers
        seconds = self.metrics.ended(exchange.began, exchange.path, answer.status)
        identifier = self._request_id(asked)
        if self._traces is not None:
            known = exchange.path if exchange.path in self._operations else None
            self._traces.ended(exchange.method, known, asked, answer.status, seconds)
        if self._options.access_log:
            _log(exchange, answer, seconds, identifier)
        more = dict(answer.headers)
        if self._options.cors_origins and b"origin" in asked:
            more |= self._cross_origin(asked[b"origin"])
        if b"traceparent" in asked:
            more[b"traceparent"] = asked[b"traceparent"]
        if close:
            more[b"connection"] = b"close"
        lines = b"".join([b"%b: %b\r\n" % line for line in more.items()]) if more else b""
        begin = _STATUS_LINES[answer.status]
        if answer.status == _NO_CONTENT:
            return b"%bdate: %b\r\nx-request-id: %b\r\n%b\r\n" % (begin, date, identifier, lines)
        told = (begin, date, identifier, lines, answer.content_type, len(answer.body))
        return b"%bdate: %b\r\nx-request-id: %b\r\n%bcontent-type: %b\r\ncontent-length: %d\r\n\r\n" % told

    def _request_id(self, headers: Mapping[bytes, bytes]) -> bytes:
        """The client's own, else a new one."""
        found = headers.get(b"x-request-id")
        if found is not None and _REQUEST_ID.fullmatch(found):
            return found
        return b"%s-%x" % (self._ids, next(self._count))

    def _cross_origin(self, origin: bytes) -> dict[bytes, bytes]:
        """As https://fetch.spec.whatwg.org/#http-cors-protocol has it."""
        allowed = self._options.allowed_origin(origin)
        if allowed is None:
            return {b"vary": b"origin"}
        return {
            b"vary": b"origin",
            b"access-control-allow-origin": allowed,
            b"access-control-expose-headers": b"x-request-id, traceparent, retry-after",
        }


_NO_CONTENT = HTTPStatus.NO_CONTENT.value  # a number is compared in a tenth of the time
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def of_model(
    model: LoadedModel,
    options: Options = NONE_ASKED,
    numbers: SharedNumbers | None = None,
    row: int = 0,
    traces: Traces | None = None,
) -> list[Application]:
    """The server of a model, and that of its metrics where they have a port of their own.

    `numbers`, `row`: where it counts, with other workers.
    """
    answered = operations(model)
    metrics = Metrics(numbers or SharedNumbers(1), row, [*answered, "/metrics"], model.info)
    scraped = {"/metrics": metrics_operation(metrics)}
    if options.metrics_port is None:
        return [Application({**answered, **scraped}, metrics, options, traces)]
    return [Application(answered, metrics, options, traces), Application(scraped, metrics, options)]


def _preflight(operation: Operation, headers: Mapping[bytes, bytes]) -> Answer:
    """What a browser asks before it sends JSON to another site."""
    asked = headers.get(b"access-control-request-headers", b"")
    allowed = {
        b"access-control-allow-methods": operation.method.encode(),
        b"access-control-allow-headers": asked,
        b"access-control-max-age": b"600",
    }
    return Answer(b"", 204, headers={name: value for name, value in allowed.items() if value})


def _log(exchange: Exchange, answer: Answer, seconds: float, identifier: bytes) -> None:
    told = {
        "time": datetime.now(timezone.utc).isoformat(),  # noqa: UP017 - models run on older Pythons, too
        "method": exchange.method,
        "path": exchange.path,
        "status": answer.status,
        "bytes": len(answer.body),
        "seconds": round(seconds, 6),
        "request_id": identifier.decode(),
    }
    if b"traceparent" in exchange.headers:
        told["traceparent"] = exchange.headers[b"traceparent"].decode("latin-1")
    # In one write: the process for large bodies and the model print there, too.
    sys.stdout.write(orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE).decode())
    sys.stdout.flush()


def inflates_to(size: int, body: bytes) -> bool:
    """Whether a body with a content coding has so many bytes, or more, without it."""
    if len(body) >= size:
        return True
    if len(body) * _MOST_INFLATED < size:
        return False
    for window_bits in (_EITHER, -zlib.MAX_WBITS):
        try:
            _inflate(body, window_bits, size - 1)
        except Refused:
            return True
        except zlib.error:
            continue
        return False
    return False


def _decompressed(body: bytes, coding: bytes) -> bytes:
    """Content codings as in https://www.rfc-editor.org/rfc/rfc9110#name-content-codings. Raises Refused."""
    if coding == b"identity":
        return body
    if coding not in _CONTENT_CODED:
        raise Refused(
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
        raise Refused(problem(400, "not_compressed", told)) from error
    return content


def _inflate(body: bytes, window_bits: int, most: int = BODY_LIMIT) -> bytes:
    """Of all members, one after the other (https://www.rfc-editor.org/rfc/rfc1952#section-2.2).

    Raises Refused for more than `most` bytes.
    """
    content, left, inflater = bytearray(), memoryview(body), zlib.decompressobj(window_bits)
    while left:
        if inflater.eof:
            inflater = zlib.decompressobj(window_bits)
        piece = left[:_PIECE]
        content += inflater.decompress(piece, most + 1 - len(content))
        if len(content) > most:
            raise Refused(TOO_LARGE)
        left = left[len(piece) - len(inflater.unused_data) :]
    if not inflater.eof:
        raise zlib.error("it is cut off")
    return bytes(content)
