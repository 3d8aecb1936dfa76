"""A small token service of the kind that registries send their clients to: a stand-in for Docker Hub's and others'.

Protocol: https://distribution.github.io/distribution/spec/auth/token/, oauth/ and jwt/ beside it. The registry that
checks its tokens is real.
"""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from .registries import Certificate


@dataclass
class TokenService:
    """`users`: passwords by name; who is none of them may pull only. `seconds`: how long a token lasts.

    `withheld`: what nobody may do.
    """

    certificate: Certificate
    users: dict[str, str]
    identity_tokens: set[str] = field(default_factory=set)
    seconds: int = 60
    withheld: frozenset[str] = frozenset()
    asked: list[list[str]] = field(default_factory=list)
    """The scopes of each request."""
    issued: list[str] = field(default_factory=list)
    url: str = ""

    def configuration(self) -> dict[str, Any]:
        """The part of a registry's configuration that sends clients here."""
        return {
            "token": {
                "realm": self.url,
                "service": "registry",
                "issuer": "tests",
                "rootcertbundle": str(self.certificate.file),
            }
        }

    def answer(self, scopes: list[str], *, known: bool) -> dict[str, Any]:
        self.asked.append(scopes)
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = [action for action in actions.split(",") if known or action == "pull"]
            allowed = [action for action in allowed if action not in self.withheld]
            access.append({"type": kind, "name": name, "actions": allowed})
        self.issued.append(self._signed(access))
        return {"token": self.issued[-1], "expires_in": self.seconds}

    def _signed(self, access: list[dict[str, Any]]) -> str:
        der = self.certificate.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {
            "iss": "tests", "sub": "", "aud": "registry", "iat": now, "nbf": now - 5, "exp": now + self.seconds,
            "jti": uuid4().hex, "access": access,
        }  # fmt: skip
        text = b".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        signature = self.certificate.key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        return (text + b"." + _encoded(signature)).decode()


@contextmanager
def running(service: TokenService) -> Iterator[TokenService]:
    """Serve it on the loopback until the block ends; its `url` is set."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            header = self.headers.get("Authorization", "")
            name, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
            known = service.users.get(name) == password
            if header and not known:
                self._send(401, {"details": "wrong password"})
            else:
                self._send(200, service.answer(parse_qs(urlsplit(self.path).query).get("scope", []), known=known))

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            if form["grant_type"] == ["refresh_token"] and form["refresh_token"][0] in service.identity_tokens:
                found = service.answer(form["scope"][0].split(), known=True)
                self._send(200, {"access_token": found["token"], "expires_in": found["expires_in"]})
            else:
                self._send(400, {"error": "invalid_grant"})

        def _send(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}/token"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
