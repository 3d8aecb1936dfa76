"""A script's output: kept in a file as it is, and given on line by line as it comes."""

import codecs
import time
from collections import deque
from collections.abc import Callable
from typing import IO, Final

TAIL_LINES: Final = 50
LINE_CHARACTERS: Final = 4096
"""A longer line is given on in pieces."""
_REDRAW_SECONDS: Final = 1.0


class ScriptOutput:
    """Takes bytes, in any pieces; `on_line` gets text lines without their ends.

    Of a line that redraws itself with carriage returns, as progress bars do, one state a second is given on.
    """

    def __init__(self, file: IO[bytes], limit_bytes: int, on_line: Callable[[str], None]) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.size = 0
        self._file = file
        self._limit = limit_bytes
        self._on_line = on_line
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._open = ""
        self._redrawn = 0.0

    @property
    def passed_limit(self) -> bool:
        return self.size > self._limit

    def feed(self, data: bytes) -> None:
        """Take a piece; what passes the limit is dropped."""
        kept = data[: max(self._limit - self.size, 0)]
        self.size += len(data)
        self._file.write(kept)
        self._file.flush()
        *whole, self._open = (self._open + self._decoder.decode(kept)).split("\n")
        for line in whole:
            self._end_line(line)
        self._redraw()
        while len(self._open) > LINE_CHARACTERS:
            self._emit(self._open[:LINE_CHARACTERS])
            self._open = self._open[LINE_CHARACTERS:]

    def close(self) -> None:
        """Give on what has no line end."""
        self._end_line(self._open + self._decoder.decode(b"", final=True) or "\r")
        self._open = ""

    def _end_line(self, line: str) -> None:
        shown = _shown(line)
        if shown or "\r" not in line:
            for start in range(0, max(len(shown), 1), LINE_CHARACTERS):
                self._emit(shown[start : start + LINE_CHARACTERS])

    def _redraw(self) -> None:
        """Of a line that was begun anew keep only what it shows; give that on unless one was a moment ago."""
        before, returned, rest = self._open.rpartition("\r")
        state = _shown(before)
        if not returned:
            return
        now = time.monotonic()
        if state and now - self._redrawn >= _REDRAW_SECONDS:
            self._redrawn = now
            self._emit(state)
            state = ""
        self._open = f"{state}\r{rest}"

    def _emit(self, line: str) -> None:
        self.tail.append(line)
        self._on_line(line)


def _shown(line: str) -> str:
    """What a terminal would show of a line that returned to its begin, roughly: its last state."""
    return next((state for state in reversed(line.split("\r")) if state), "")
