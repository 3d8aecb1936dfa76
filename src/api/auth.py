"""Who may call: the bearer token, and, where there is none, this machine only."""

import hmac
import ipaddress
import socket
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import AsgardError, Unauthorized
from ..settings import Settings
from .errors import HostNotAllowed, problem_response

PUBLIC: Final = frozenset({"/", "/health", "/docs", "/openapi.json"})
"""Paths that need no token: what Asgard is, whether it lives, and how to speak to it. They say nothing about models."""


class ListenRefused(AsgardError):
    """The API was asked to listen beyond loopback, and anybody who reaches it could run code."""


def token(settings: Settings) -> bytes | None:
    """The token that requests must carry; None where there is none (an empty one is none)."""
    secret = settings.api_token.get_secret_value() if settings.api_token else ""
    return secret.encode() or None


def check_listen(host: str, settings: Settings) -> None:
    """Raises ListenRefused for a host that others can reach while there is no token."""
    if token(settings) is None and not _resolves_to_loopback(host):
        raise ListenRefused(
            f"Without a token the API listens on loopback only, and {host!r} is not: whoever reaches it can run code "
            "here. Set ASGARD_API_TOKEN, or listen on 127.0.0.1."
        )


class Gate:
    """ASGI middleware: lets a request through, or answers 401 or 403 before anything reads its body."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._token = token(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._refusal(scope["path"], Headers(scope=scope))):
            await problem_response(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, path: str, headers: Headers) -> AsgardError | None:
        if self._token is None:
            # A page on any site can make a browser call 127.0.0.1 under a name of the site's own (DNS rebinding).
            return None if _is_local(headers.getlist("host")) else _HOST_NOT_ALLOWED
        if path in PUBLIC:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if not given:
            return Unauthorized("Send the header `Authorization: Bearer <ASGARD_API_TOKEN>`.")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
            return Unauthorized("The bearer token is not the one in ASGARD_API_TOKEN.")
        return None


_HOST_NOT_ALLOWED: Final = HostNotAllowed(
    "Without a token Asgard answers only under localhost or a loopback address. Call it so, or set ASGARD_API_TOKEN."
)


def _is_local(hosts: list[str]) -> bool:
    """Whether the Host header is there once and names loopback; resolving the name would be asking the attacker."""
    if len(hosts) != 1 or "@" in hosts[0]:
        return False
    try:
        name = urlsplit(f"//{hosts[0]}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _resolves_to_loopback(host: str) -> bool:
    if not host:  # every interface
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(_is_loopback(str(address[0])) for *_, address in found)
