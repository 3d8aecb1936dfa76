"""logs/server.log: all that a model's processes print, with the time and the process, in files of bounded size."""

import logging
import time
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES = 8 * 1024**2
"""Size at which the file is set aside."""

KEPT_FILES = 3
"""How many files set aside are kept: server.log.1 is the newest."""

Write = Callable[[int, str], None]
"""Appends one line (no newline at its end) of the process with the given id."""


def open_log(path: Path, max_bytes: int = MAX_BYTES) -> Write:
    """Open or continue the log at `path`, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=max_bytes, backupCount=KEPT_FILES, encoding="utf-8", errors="replace")
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ [%(pid)d] %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)

    def write(pid: int, line: str) -> None:
        # Given as an argument, so that a percent sign in a line is no format.
        record = logging.LogRecord("server", logging.INFO, "", 0, "%s", (line,), None)
        record.pid = pid
        handler.handle(record)

    return write
