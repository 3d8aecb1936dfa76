"""What the cache folder may lose: environments and parts of images that nobody has wanted for a month."""

import time
from pathlib import Path
from typing import Final

import structlog

from . import environments
from .images import blobs

UNUSED_SECONDS: Final = 30 * 86400.0
"""After that, what is wanted again is made again."""

_log = structlog.get_logger("asgard.cache")


def prune(cache_dir: Path) -> None:
    """Remove what is unused. Whatever is removed comes back from its lock, its bundle or its registry when wanted."""
    before = time.time() - UNUSED_SECONDS
    removed = {
        "environments": len(environments.prune(cache_dir, before)),
        "image_blobs": len(blobs.prune(cache_dir, before)),
    }
    if any(removed.values()):
        _log.info("removed from the cache folder what was not used for 30 days", **removed)
