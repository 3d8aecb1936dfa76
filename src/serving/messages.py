"""What a request and its answer are, whatever protocol carries them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

JSON = b"application/json"
PROBLEM_JSON = b"application/problem+json"


class Request(NamedTuple):
    """One request. `body`: its content, decompressed; `headers`: names in lower case."""

    body: bytes
    headers: Mapping[bytes, bytes] = MappingProxyType({})

    def header(self, name: bytes) -> str | None:
        """A header's value."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


class Answer(NamedTuple):
    """One answer. `headers`: besides content type and length; names in lower case."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: Mapping[bytes, bytes] = MappingProxyType({})
