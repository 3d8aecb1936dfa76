"""Requests whose head has come before, byte for byte: those of a client differ in their bodies alone, mostly."""

from typing import NamedTuple

HEADS = 256
"""As many are known at once; beyond them all are forgotten."""

HEAD_BYTES = 1024
"""A longer one is parsed each time."""

_END = b"\r\n\r\n"
_ONCE = (b"transfer-encoding", b"expect", b"upgrade")
"""Headers with which more than the length of the body is to be told."""


class Head(NamedTuple):
    """What a head says. `headers`: names in lower case; `length`: bytes of the body."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    length: int


class KnownHeads:
    """Of one server, whatever connection they came by."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        """Head and body of a request, where `data` is one whole request, and none but its head is known."""
        end = data.find(_END, 0, HEAD_BYTES) + len(_END)
        head = self._heads.get(data[:end])
        return None if head is None or len(data) - end != head.length else (head, data[end:])

    def remember(self, data: bytes, method: str, path: str, headers: dict[bytes, bytes]) -> None:
        """Know the head with which `data` begins, which httptools has read, in the state in which a connection begins.

        Where its body is all that follows in `data`: what ends the head is then certain, too.
        """
        end = data.find(_END, 0, HEAD_BYTES) + len(_END)
        length = int(headers.get(b"content-length", b"0"))
        if end < len(_END) or len(data) - end != length or any(name in headers for name in _ONCE):
            return
        if len(self._heads) >= HEADS:
            self._heads.clear()
        self._heads[data[:end]] = Head(method, path, headers, length)
