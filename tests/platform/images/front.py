"""A proxy before a real registry that counts what passes and fails on demand: a stand-in for an unreliable network."""

import http.client
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Fault:
    """What happens instead of an answer, `times` times, to a request like `PUT /v2/…` that matches `pattern`.

    `agent`: where set, only to whose User-Agent begins so.
    `status` with `headers` and `body`; or, where `status` is None, the connection is cut after `read` bytes of the
    request's body.
    """

    pattern: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    read: int = 0
    times: int = 1
    agent: str = ""


@dataclass
class Front:
    """`requests`: each one's method and path; `received`: bytes of requests' bodies."""

    upstream: str
    host: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    received: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, request: str, agent: str) -> Fault | None:
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times and agent.startswith(fault.agent) and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def running(upstream: str) -> Iterator[Front]:
    """Before the registry at `host:port`; `host` of what is yielded is its own."""
    front = Front(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            fault = front.fault(f"{self.command} {self.path}", self.headers.get("User-Agent", ""))
            if fault is None:
                self._forward(self._read(length))
            elif fault.status is None:
                self._read(min(length, fault.read))
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            else:
                self._read(length)
                self._answer(fault.status, {**fault.headers, "Content-Length": str(len(fault.body))}, fault.body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _pass  # noqa: N815

        def _read(self, length: int) -> bytes:
            body = self.rfile.read(length)
            with front.lock:
                front.received += len(body)
            return body

        def _forward(self, body: bytes) -> None:
            connection = http.client.HTTPConnection(front.upstream, timeout=60)
            try:
                connection.request(self.command, self.path, body or None, dict(self.headers.items()))
                answer = connection.getresponse()
                content = answer.read()
                kept = {name: value for name, value in answer.getheaders() if name.lower() != "transfer-encoding"}
                self._answer(answer.status, kept, content)
            finally:
                connection.close()

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    front.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
