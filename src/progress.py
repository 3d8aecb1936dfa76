"""What a deploy tells whoever watches it, as it happens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Stage = Literal["queue", "environment", "training", "registration", "bundle", "infrastructure"]
"""The steps of a deploy, in order. `queue`: waiting for a free place."""


@dataclass(frozen=True)
class Progress:
    """One event. `kind` "stage": `text` says what begins; "log": `text` is one line of output, without its newline."""

    stage: Stage
    kind: Literal["stage", "log"]
    text: str


OnProgress = Callable[[Progress], None]
"""Called from any thread; must not block and must not raise."""
