"""Files that others read, and replace, at the same time; and the disk that has no place for them."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from ..errors import DiskFull

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def replace(path: Path, text: str) -> None:
    """Give a file, there or not, this content: a reader sees the old or the new, and of two writers one wins."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def full_disk_told() -> Iterator[None]:
    """Let out what failed for want of space as DiskFull, which says where and what to do."""
    try:
        yield
    except OSError as error:
        if not _is_full(error):
            raise
        where = f": {error.filename} could not be written" if error.filename else ""
        raise DiskFull(f"No space is left{where}. Free some, and do the same again.") from error


def _is_full(error: OSError) -> bool:
    if isinstance(error, shutil.Error):  # of a whole tree, which tells of each file in words
        return any(os.strerror(number) in str(error) for number in _FULL)
    return error.errno in _FULL
