"""What a model asks of its server: variables of its deploy whose names begin with ASGARD_SERVER_."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

ACCESS_LOG = "ASGARD_SERVER_ACCESS_LOG"
CORS_ORIGINS = "ASGARD_SERVER_CORS_ORIGINS"
NAMES = (ACCESS_LOG, CORS_ORIGINS)

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_ORIGIN = re.compile(r"https?://[\w.\-\[\]:]+", re.ASCII)


@dataclass(frozen=True)
class Options:
    """`access_log`: a line of JSON a request. `cors_origins`: sites whose pages may ask; "*" is any."""

    access_log: bool = False
    cors_origins: frozenset[str] = frozenset()

    def allowed_origin(self, origin: bytes) -> bytes | None:
        """What a page of that origin is told; None: it may not ask."""
        if "*" in self.cors_origins:
            return b"*"
        return origin if origin.decode("latin-1") in self.cors_origins else None


NONE_ASKED = Options()


def read(variables: Mapping[str, str]) -> Options:
    """Raises ValueError, naming the variable and what it may be."""
    text = variables.get(ACCESS_LOG, "false")
    if text.lower() not in _BOOLEANS:
        raise ValueError(f"{ACCESS_LOG} is {text!r}; it may be true or false")
    origins = frozenset(filter(None, map(str.strip, variables.get(CORS_ORIGINS, "").split(","))))
    for origin in origins - {"*"}:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{CORS_ORIGINS}: {origin!r} is no origin such as https://example.com; * is any")
    return Options(_BOOLEANS[text.lower()], origins)
