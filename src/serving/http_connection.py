"""One client's connection: HTTP/1.1 (RFC 9112), read by httptools, without a framework between socket and model.

Requests are answered in the order in which they came. What a client sends ahead waits in the socket, and so does what
it does not read; neither costs others anything.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, unquote

import httptools

from .application import BODY_LIMIT, TOO_LARGE, Application, Exchange, Refused, inflates_to
from .handlers import told
from .messages import Answer
from .problems import problem

if TYPE_CHECKING:
    from .http_server import Server

HEAD_LIMIT = 64 * 1024
"""Bytes of a request's head; a larger one is answered 431."""

IDLE_SECONDS = 75.0
"""After which a connection is closed on which nothing moves; longer than clients and proxies usually keep one for."""

LARGE_BYTES = 256 * 1024
"""Of a body from which on, or where its length is unknown, its connection is handed over to who takes it."""

AGAIN_SECONDS = 0.05
"""Until who cannot take it yet is asked again."""

LINGER_SECONDS = 2.0
"""How long what a refused client still sends is read and thrown away: else it might not get to read the answer."""

_HEAD_TOO_LARGE = problem(431, "head_too_large", f"The request's head passes {HEAD_LIMIT} bytes.")


class Connection(asyncio.Protocol):
    """Made by the event loop for each client; httptools calls what begins with `on_`.

    `begun`: what another process has read of it.
    """

    _transport: asyncio.Transport

    def __init__(self, application: Application, server: "Server", begun: bytes = b"") -> None:
        self._application = application
        self._server = server
        self._begun = begun
        self._parser = httptools.HttpRequestParser(self)
        self._exchange: Exchange | None = None  # being read, from the end of its head on
        self._now: Exchange | None = None  # being answered
        self._waiting: deque[Exchange] = deque()
        self._whole: bytes | None = None  # what has come, where a request begins with it
        self._headers: dict[bytes, bytes] = {}
        self._url = b""
        self._body: bytes | bytearray = b""
        self._head_bytes = 0
        self._unended = 0  # bytes of a head, or of a trailer, whose end has not come
        self._advancing = self._paused = self._ended = self._expects = False
        self._reading = True
        self._active = 0.0
        self._unread = 0  # of what was answered, when that was looked at

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is there."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.connected(self)
        self._active = self._server.now
        if self._begun:
            self.data_received(self._begun)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The client is gone, whatever it has asked."""
        self._ended = True
        self._server.connections.discard(self)
        for exchange in (self._exchange, self._now, *self._waiting):
            if exchange is not None:
                self._application.metrics.gone()
        self._exchange = self._now = None
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        """Some of a request, or several."""
        self._active = self._server.now
        if self._ended:
            return
        self._whole = None
        if self._exchange is None and self._head_bytes == 0:
            known = self._server.known_heads.find(data)
            if known is not None:
                head, body = known
                began = self._application.metrics.began()
                self._waiting.append(Exchange(head.method, head.path, head.headers, began, body, keep=True))
                self._advance()
                return
            self._whole = data
        if self._unended:
            self._unended += len(data)
        offered: int | None = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            offered = upgrade.args[0]
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, Refused):
                raise
            self._refuse(error.__context__.answer)
        except httptools.HttpParserError as error:
            self._refuse(problem(400, "bad_request", f"The request is not HTTP/1.1: {error}."))
        if offered is not None:
            self._ignore_upgrade(data[offered:])
            return
        if self._unended > 2 * HEAD_LIMIT:
            self._refuse(_HEAD_TOO_LARGE)
        if self._exchange is not None:
            begins = self._whole is not None and self._now is None
            if begins and int(self._exchange.headers.get(b"content-length", LARGE_BYTES)) >= LARGE_BYTES:
                self._hand_over(data, self._read_body)
            else:
                self._read_body()

    def pause_writing(self) -> None:
        """The client reads more slowly than it asks."""
        self._paused = True
        self._read(False)

    def resume_writing(self) -> None:
        """It has read."""
        self._paused = False
        self._advance()

    # What the server asks

    def look(self, now: float) -> None:
        """Close where nothing has moved for long."""
        unread = self._transport.get_write_buffer_size()
        if unread != self._unread:
            self._unread, self._active = unread, now
        if self._now is None and now - self._active > IDLE_SECONDS:
            self._transport.abort()

    def close_when_idle(self) -> None:
        """Close, after what is being answered."""
        if self._now is None and not self._waiting:
            self._transport.close()

    # What httptools tells

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body, self._head_bytes, self._unended = b"", {}, b"", 1, 1

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._exchange is None:  # else it is a trailer
            self._head_bytes += len(name) + len(value)
            if self._head_bytes > HEAD_LIMIT:
                raise Refused(_HEAD_TOO_LARGE)
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._head_bytes = self._unended = 0
        if self._parser.should_upgrade():  # and httptools will read no body
            return
        headers = self._headers
        began = self._application.metrics.began()
        self._exchange = Exchange(self._parser.get_method().decode(), _path(self._url), headers, began)
        if int(headers.get(b"content-length", b"0")) > BODY_LIMIT:
            raise Refused(TOO_LARGE)
        expects = headers.get(b"expect", b"").lower() == b"100-continue"
        expects &= self._parser.get_http_version() == "1.1"  # others must not be told
        self._expects = expects and self._now is None and not self._waiting

    def on_chunk_header(self) -> None:
        self._unended = 1  # where no body follows, the trailer does

    def on_body(self, body: bytes) -> None:
        self._unended = 0
        if not self._body:
            self._body = body
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += body
        if len(self._body) > BODY_LIMIT:
            raise Refused(TOO_LARGE)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None:  # an upgrade is asked for
            return
        self._exchange, self._unended = None, 0
        exchange.body = bytes(self._body)
        exchange.keep = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"
        if self._whole is not None and exchange.keep:
            self._server.known_heads.remember(self._whole, exchange.method, exchange.path, exchange.headers)
        self._whole = None
        self._waiting.append(exchange)
        self._advance()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read a request that offers another protocol as one that does not, which is what a server may do."""
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._refuse(problem(400, "bad_request", "This is a model's server and no proxy."))
            return
        version = self._parser.get_http_version().encode()
        kept = {name: value for name, value in self._headers.items() if name != b"upgrade"}
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(_request(method, self._url, kept, rest, version))

    def _read_body(self) -> None:
        """Let the client send it, where it waits for that."""
        if self._expects:
            self._expects = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _ask_or_hand_over(self, exchange: Exchange) -> None:
        """Once what came with the request has been read, too."""
        if self._now is not exchange:  # the client is gone
            return
        ask = partial(self._application.ask, exchange, self._answer, alone=False)
        if self._exchange is None and self._head_bytes == 0:
            self._hand_over(_written(exchange), ask)
        else:
            ask()

    def _hand_over(self, begun: bytes, otherwise: Callable[[], None]) -> None:
        """Have another process go on with this connection, of which `begun` alone is not answered; else `otherwise`."""
        take = self._server.hand_over
        if self._transport.is_closing():
            return
        if take is None or self._waiting or self._transport.get_write_buffer_size():
            otherwise()
            return
        self._transport.pause_reading()
        taken = take(self._transport.get_extra_info("socket").fileno(), begun)
        if taken:
            self._transport.abort()
        elif taken is None:
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._hand_over, begun, otherwise)
        else:
            self._transport.resume_reading()
            otherwise()

    # Answering

    def _refuse(self, answer: Answer) -> None:
        """The last answer on this connection: what follows is not read as requests."""
        exchange = self._exchange or Exchange("", "", {}, self._application.metrics.began())
        exchange.refusal, exchange.keep = answer, False
        self._exchange, self._head_bytes, self._unended, self._ended = None, 0, 0, True
        self._waiting.append(exchange)
        self._advance()

    def _advance(self) -> None:
        """Have the next request answered, and those after it, as far as that can be done now."""
        if self._advancing:
            return
        self._advancing = True
        while self._waiting and self._now is None and not self._paused:
            self._now = exchange = self._waiting.popleft()
            if exchange.refusal is not None:
                self._answer(exchange.refusal)
            elif (
                b"content-encoding" in exchange.headers
                and self._server.hand_over is not None
                and inflates_to(LARGE_BYTES, exchange.body)
            ):
                asyncio.get_running_loop().call_soon(self._ask_or_hand_over, exchange)
            else:
                self._application.ask(exchange, self._answer, alone=len(self._server.connections) == 1)
        self._advancing = False
        self._read(not self._waiting and not self._paused)

    def _answer(self, answer: Answer) -> None:
        exchange = self._now
        if exchange is None:  # the client is gone
            return
        self._now = None
        self._active = self._server.now
        answer = told(exchange.path, answer)
        keep = exchange.keep and not self._server.closing
        head = self._application.head(exchange, answer, self._server.date, close=not keep)
        self._transport.write(head if exchange.method == "HEAD" else head + answer.body)
        if keep:
            if self._waiting:
                self._advance()
        elif exchange.refusal is None:
            self._close()
        else:
            self._transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.close)

    def _close(self) -> None:
        """After what has been written; what else was asked is not answered, as the last answer told."""
        self._ended = True
        for _ in self._waiting:
            self._application.metrics.gone()
        self._waiting.clear()
        self._transport.close()

    def _read(self, on: bool) -> None:
        if on != self._reading and not self._transport.is_closing():
            self._reading = on
            (self._transport.resume_reading if on else self._transport.pause_reading)()


def _written(exchange: Exchange) -> bytes:
    """The request again, with the length of its body."""
    headers = {name: value for name, value in exchange.headers.items() if name not in (b"transfer-encoding", b"expect")}
    headers[b"content-length"] = b"%d" % len(exchange.body)
    if not exchange.keep:
        headers[b"connection"] = b"close"
    return _request(exchange.method.encode(), quote(exchange.path).encode(), headers, exchange.body)


def _request(
    method: bytes, target: bytes, headers: Mapping[bytes, bytes], rest: bytes, version: bytes = b"1.1"
) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % line for line in headers.items())
    return b"%b %b HTTP/%b\r\n%b\r\n%b" % (method, target, version, lines, rest)


@lru_cache(64)
def _path(url: bytes) -> str:
    """Of a request's target in any form (https://www.rfc-editor.org/rfc/rfc9112#name-request-target)."""
    path = url.partition(b"?")[0]
    if not path.startswith(b"/"):
        try:
            path = httptools.parse_url(url).path or b"/"
        except httptools.HttpParserInvalidURLError:
            return url.decode("latin-1")
    return unquote(path.decode("latin-1")) if b"%" in path else path.decode("latin-1")
