"""Who we are to a registry: credentials from Docker's configuration, and the Authorization header made of them.

Protocol: https://distribution.github.io/distribution/spec/auth/token/ and oauth/ beside it.
"""

import base64
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import parse_http_list, parse_keqv_list

import httpx
from docker import auth as docker_auth
from docker.errors import DockerException
from docker.utils.config import load_general_config

from ...errors import InfrastructureFailed
from .references import is_loopback

_IDENTITY_TOKEN: Final = docker_auth.TOKEN_USERNAME
"""The user name under which Docker's helpers keep a refresh token."""

_TOKEN_SECONDS: Final = 60.0
"""How long a token lasts whose service does not say."""


@dataclass(frozen=True)
class Credentials:
    """`password`: for the user name `<token>` an identity token."""

    username: str
    password: str = field(repr=False)


def from_docker_config(registry: str) -> Credentials | None:
    """What `docker login` has left for the registry, in its configuration or a credential helper; None: nothing.

    Raises InfrastructureFailed.
    """
    try:
        found = docker_auth.resolve_authconfig(docker_auth.load_config(config_dict=_docker_config()), registry) or {}
    except (DockerException, ValueError) as error:
        # The text of the error may be what a helper printed, and that may be a secret.
        raise InfrastructureFailed(
            f"Docker's configuration has no usable credentials for {registry} ({type(error).__name__}). "
            f"Run `docker login {registry}` again.",
            reason="Unauthorized",
        ) from None
    if token := found.get("IdentityToken"):
        return Credentials(_IDENTITY_TOKEN, token)
    username, password = (found.get(name) or found.get(name.title()) for name in ("username", "password"))
    return Credentials(username, password) if username and password else None


def _docker_config() -> dict[str, Any]:
    """Docker's configuration. A password beside its user name, as Docker takes it, gets docker-py's form."""
    config: dict[str, Any] = load_general_config()
    for entry in (config.get("auths") or {}).values():
        if isinstance(entry, dict) and not entry.get("auth") and entry.get("username") and entry.get("password"):
            entry["auth"] = base64.b64encode(f"{entry['username']}:{entry['password']}".encode()).decode()
    return config


class Authorizer:
    """Answers a registry's challenge. Until there was one, nothing is sent. Safe to use from several threads.

    `credentials`: None: what Docker's configuration has, looked up when they are asked for: a helper may be slow.
    """

    def __init__(self, registry: str, credentials: Credentials | None) -> None:
        self._registry = registry
        self._given = credentials
        self._basic = False
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}
        self._lock = threading.Lock()

    @cached_property
    def _credentials(self) -> Credentials | None:
        return self._given or from_docker_config(self._registry)

    def header(self, scopes: Sequence[str]) -> Mapping[str, str]:
        """The header for a request that needs these scopes; empty where none is known to be needed."""
        if self._basic and self._credentials is not None:
            return {"Authorization": _basic(self._credentials)}
        token, expires = self._tokens.get(tuple(scopes), ("", 0.0))
        return {"Authorization": f"Bearer {token}"} if time.monotonic() < expires else {}

    def accept(self, challenge: str, sent: str | None, scopes: Sequence[str], client: httpx.Client) -> bool:
        """Prepare for a `WWW-Authenticate`; whether another try may help. `sent`: the header that was not enough.

        Raises httpx.HTTPError and InfrastructureFailed.
        """
        scheme, _, rest = challenge.partition(" ")
        with self._lock:
            if self.header(scopes).get("Authorization", sent) != sent:
                return True  # another thread was quicker
            if scheme.lower() == "bearer":
                asked = parse_keqv_list(parse_http_list(rest))
                wanted = [*scopes, *_beyond(scopes, asked.get("scope", "").split())]
                token, seconds = self._fetch(asked, wanted, client)
                # Renewed before it ends: a long upload is authorized once, at its beginning.
                self._tokens[tuple(scopes)] = token, time.monotonic() + 0.8 * seconds
                return True
            self._basic = scheme.lower() == "basic"
            return self._basic and self._credentials is not None and sent is None

    def refused(self, said: str = "") -> InfrastructureFailed:
        """The error for a registry that does not let us in. `said`: its own words."""
        known = self._credentials is not None
        what = "refuses the credentials that were found for it" if known else "wants credentials, and there are none"
        return InfrastructureFailed(
            f"The registry {self._registry} {what}{said and f' ({said})'}. Run `docker login {self._registry}`, or see "
            "that the account may read and write there.",
            reason="Unauthorized",
        )

    def _fetch(self, asked: Mapping[str, str], scopes: Sequence[str], client: httpx.Client) -> tuple[str, float]:
        realm = asked.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.netloc)):
            raise InfrastructureFailed(
                f"The registry {self._registry} names a token service that is not https, which gets no credentials.",
                reason="Unauthorized",
            )
        service = {"service": asked["service"]} if "service" in asked else {}
        known = self._credentials
        if known is not None and known.username == _IDENTITY_TOKEN:
            form = {"grant_type": "refresh_token", "refresh_token": known.password, "client_id": "asgard", **service}
            response = client.post(realm, data={**form, "scope": " ".join(scopes)})
        else:
            headers = {} if known is None else {"Authorization": _basic(known)}
            response = client.get(realm, params={**service, "scope": list(scopes)}, headers=headers)
        if response.status_code in (400, 401, 403):
            raise self.refused()
        response.raise_for_status()
        try:
            document: dict[str, Any] = response.json()
            token: str = document.get("token") or document["access_token"]
            return token, float(document.get("expires_in") or _TOKEN_SECONDS)
        except (ValueError, LookupError, AttributeError):
            raise InfrastructureFailed(
                f"The token service of {self._registry} answers something else than a token.", reason="Unauthorized"
            ) from None


def _beyond(scopes: Sequence[str], asked: Sequence[str]) -> list[str]:
    """What is asked for of the same repositories beyond `scopes`, as to delete is in most registries."""
    known: dict[str, set[str]] = {}
    for scope in scopes:
        repository, _, actions = scope.rpartition(":")
        known.setdefault(repository, set()).update(actions.split(","))
    parts = [(scope, *scope.rpartition(":")[::2]) for scope in asked]
    return [
        scope
        for scope, repository, actions in parts
        if repository in known and not known[repository].issuperset(actions.split(","))
    ]


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"
