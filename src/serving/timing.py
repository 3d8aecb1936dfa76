"""What a predict costs, measured when a model is loaded."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .loaded import Cost, Predict

TOGETHER = 32
"""Rows that are predicted together to see what each costs then."""

_ENOUGH_SECONDS = 0.1
_REPEATS = 7


def cost(predict: Predict, rows: Any) -> Cost | None:
    """The cost of a predict; `rows`: one row. None where it raises."""
    try:
        one = _best(lambda: predict(rows))
        if not isinstance(rows, np.ndarray) or one > 1:
            return Cost(one, one)
        many = np.repeat(rows, TOGETHER, axis=0)
        return Cost(one, min(one, _best(lambda: predict(many)) / TOGETHER))
    except Exception:
        return None


def _best(call: Callable[[], Any]) -> float:
    """Seconds of the fastest of a few calls."""
    began, best = time.perf_counter(), float("inf")
    for _ in range(_REPEATS):
        before = time.perf_counter()
        call()
        after = time.perf_counter()
        best = min(best, after - before)
        if after - began > _ENOUGH_SECONDS:
            break
    return best
