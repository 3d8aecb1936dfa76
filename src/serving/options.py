"""What a model asks of its server: variables of its deploy whose names begin with ASGARD_SERVER_."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from . import TRACING_REQUIREMENTS

PORT = 8080
"""On which a model in a container answers; it may be listened on without rights."""

ACCESS_LOG = "ASGARD_SERVER_ACCESS_LOG"
CORS_ORIGINS = "ASGARD_SERVER_CORS_ORIGINS"
METRICS_PORT = "ASGARD_SERVER_METRICS_PORT"
OPENTELEMETRY = "ASGARD_SERVER_OPENTELEMETRY"
NAMES = (ACCESS_LOG, CORS_ORIGINS, METRICS_PORT, OPENTELEMETRY)

_PORTS = range(1024, 65536)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_ORIGIN = re.compile(r"https?://[\w.\-\[\]:]+", re.ASCII)


@dataclass(frozen=True)
class Options:
    """`access_log`: a line of JSON a request. `cors_origins`: sites whose pages may ask; "*" is any.

    `metrics_port`: where /metrics is, and nowhere else; None: on the model's own. `opentelemetry`: a span a request.
    """

    access_log: bool = False
    cors_origins: frozenset[str] = frozenset()
    metrics_port: int | None = None
    opentelemetry: bool = False

    def allowed_origin(self, origin: bytes) -> bytes | None:
        """What a page of that origin is told; None: it may not ask."""
        if "*" in self.cors_origins:
            return b"*"
        return origin if origin.decode("latin-1") in self.cors_origins else None


NONE_ASKED = Options()


def read(variables: Mapping[str, str]) -> Options:
    """Raises ValueError, naming the variable and what it may be."""
    origins = frozenset(filter(None, map(str.strip, variables.get(CORS_ORIGINS, "").split(","))))
    for origin in origins - {"*"}:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{CORS_ORIGINS}: {origin!r} is no origin such as https://example.com; * is any")
    return Options(
        access_log=_boolean(variables, ACCESS_LOG),
        cors_origins=origins,
        metrics_port=_port(variables.get(METRICS_PORT)),
        opentelemetry=_boolean(variables, OPENTELEMETRY),
    )


def requirements(variables: Mapping[str, str]) -> tuple[str, ...]:
    """What the server needs besides, for what is asked of it. Raises as `read` does."""
    return TRACING_REQUIREMENTS if read(variables).opentelemetry else ()


def _boolean(variables: Mapping[str, str], name: str) -> bool:
    text = variables.get(name, "false")
    if text.lower() not in _BOOLEANS:
        raise ValueError(f"{name} is {text!r}; it may be true or false")
    return _BOOLEANS[text.lower()]


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text) in _PORTS and int(text) != PORT):
        raise ValueError(
            f"{METRICS_PORT} is {text!r}; it may be a port from {_PORTS[0]} to {_PORTS[-1]}, but not {PORT}, "
            "on which a model in a pod answers"
        )
    return int(text)
