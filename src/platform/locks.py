"""One operation per model at a time, across threads and processes of this data folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import DeployInProgress


@contextmanager
def model_lock(data_dir: Path, model: str) -> Iterator[None]:
    """Hold the model's lock, or raise DeployInProgress at once. The kernel frees it when the holder dies."""
    folder = data_dir / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{model}.lock"
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise DeployInProgress(model) from error
    try:
        yield
    finally:
        # While it is still held: whoever opened it meanwhile sees an unlinked file and starts over.
        path.unlink(missing_ok=True)
        lock.release()
