"""Files that others read, and replace, at the same time."""

from pathlib import Path
from uuid import uuid4


def replace(path: Path, text: str) -> None:
    """Give a file, there or not, this content: a reader sees the old or the new, and of two writers one wins."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
