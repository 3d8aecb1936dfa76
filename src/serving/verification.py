"""Whether a form answers as the original does: on seeded rows, at and around each threshold, and on missing values."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from .arrays import encode
from .forms import Form
from .loaded import Predict, SingleRows

Array = np.ndarray

ROWS: Final = 2000
"""Rows of random numbers, besides those at thresholds."""

KEPT: Final = 8
"""Rows that a worker predicts again when it loads the form."""

_MISSING: Final = (0.0, -1.0, -999.0)
"""Numbers that may stand for a missing one."""

_SEED: Final = 20240229
_CHUNK: Final = 4096
_SINGLES: Final = 48
_TOGETHER: Final = 32


class Different(Exception):
    """What differs, in a sentence."""


def rows(width: int, thresholds: Mapping[int, Array], *, whole: Array) -> Array:
    """Rows of doubles, shape (rows, width). `whole`: by column, whether it takes whole numbers alone."""
    random = np.random.default_rng(_SEED)
    # Numbers of all magnitudes, those near zero first.
    found = random.normal(size=(ROWS, width)) * 10.0 ** random.integers(-2, 4, size=(ROWS, 1))
    found[: ROWS // 2] = random.normal(size=(ROWS // 2, width))
    special = random.choice(_MISSING, size=found.shape)
    found = np.where(random.random(found.shape) < 0.05, special, found)
    finite = {feature: values[np.isfinite(values)] for feature, values in thresholds.items()}
    around = {feature: _around(values) for feature, values in finite.items() if len(values)}
    for feature, values in around.items():
        # As the values of training are, not only as a normal distribution is.
        found[::2, feature] = random.uniform(values[0] - 1, values[-1] + 1, size=len(found[::2]))
    # Where thresholds are few, each comes often: beside it, the other columns decide whether it matters.
    at = random.normal(size=(max(ROWS, *map(len, around.values())) if around else 0, width))
    for feature, values in around.items():
        at[:, feature] = random.permutation(np.resize(values, len(at)))
    found = np.concatenate([found, at])
    found[:, whole] = np.clip(np.round(found[:, whole]), -(2**31), 2**31 - 1)
    return found


def compare(original: Predict, form: Form, original_rows: Any, form_rows: Array) -> None:
    """Raise Different where the two do not answer alike."""
    for begin in range(0, len(form_rows), _CHUNK):
        expected = original(original_rows[begin : begin + _CHUNK])
        found = form(form_rows[begin : begin + _CHUNK])
        alike(expected, found)


def alike(expected: Any, found: Array) -> None:
    """Raise Different unless labels and whole numbers are equal, and fractions so within their dtype's rounding."""
    if type(expected) is not np.ndarray:
        raise Different(f"The original gives a {type(expected).__name__}, no array.")
    same = expected.dtype == found.dtype or (expected.dtype.kind in "OU" and found.dtype.kind == "U")
    if not same or expected.shape != found.shape:
        raise Different(
            f"The original gives {expected.dtype} of shape {expected.shape}, the form {found.dtype} {found.shape}."
        )
    if expected.dtype.kind == "f":
        scale = np.maximum(np.abs(expected), np.finfo(np.float32).tiny)
        tolerance = min(64 * float(np.finfo(expected.dtype).eps), 4e-6)
        equal = (np.abs(expected - found) <= tolerance * scale) | (np.isnan(expected) & np.isnan(found))
    else:
        equal = expected == found
    if not equal.all():
        raise Different(f"{int((~equal).sum())} of {equal.size} predictions differ.")


def takes(original: Predict, form: Form, original_rows: Any, form_rows: Array) -> bool:
    """Whether the original answers these rows, and the form alike."""
    try:
        compare(original, form, original_rows, form_rows)
    except Exception:
        return False
    return True


def with_odd(found: Array, odd: float, *, whole: Array) -> Array:
    """Rows in which some values are `odd`, but for `whole` columns: each alone, then several at random, then all."""
    random = np.random.default_rng(_SEED)
    width = found.shape[1]
    base = found[: 4 * width + 64].copy()
    mask = random.random(base.shape) < 0.3
    mask[:width] = np.eye(width, dtype=bool)[: len(mask[:width])]
    mask[-1] = True
    mask[:, whole] = False
    base[mask] = odd
    return base


def single_alike(single: SingleRows, predictions: Array, data: Sequence[Any]) -> bool:
    """Whether rows of requests of their own have the bodies of their predictions among others, to the last byte."""
    rows = [(single.read([row]), position) for position, row in enumerate(data)]
    packed = [(row, encode(predictions[position : position + 1])) for row, position in rows if row is not None]
    for size in (1, _TOGETHER):
        for begin in range(0, len(packed), size):
            some = packed[begin : begin + size]
            bodies = single.answer([row for row, _ in some])
            if bodies is not None and bodies != [body for _, body in some]:
                return False
    return True


def together_as_alone(predict: Predict, some: Any) -> bool:
    """Whether rows are answered alike, to the last bit, alone and with others."""
    try:
        whole = predict(some)
        if type(whole) is not np.ndarray or len(whole) != len(some):
            return False
        return all(np.array_equal(predict(some[a:b]), whole[a:b]) for a, b in _parts(len(some)))
    except Exception:
        return False


def _parts(count: int) -> Iterator[tuple[int, int]]:
    for begin in range(min(count, _SINGLES)):
        yield begin, begin + 1
    for size in (2, 3, 7, 32):
        yield from ((begin, begin + size) for begin in range(0, min(count, 4 * size), size))


def _around(thresholds: Array) -> Array:
    """Sorted: each threshold, and the numbers next to it on both sides, as floats and as doubles."""
    single, double = thresholds.astype(np.float32), thresholds.astype(np.float64)
    parts: list[Array] = [double, single]
    for direction in (-np.inf, np.inf):
        parts += [np.nextafter(double, direction), np.nextafter(single, np.float32(direction))]
    return np.unique(np.concatenate([part.astype(np.float64) for part in parts]))
