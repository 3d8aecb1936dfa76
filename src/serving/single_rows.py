"""Answers requests of one row each, from parsed JSON to the bodies: to make arrays of one row takes most of the time.

Rows are packed, so that those of requests that came together are one array. One that came alone is walked through a few
small trees in plain Python (see `walking`). All are rows of finite numbers. Whether their answers are the form's, to
the last byte, is found out when a model is compiled; only then is this used.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import forms, walking
from .arrays import encode
from .forms import Form
from .loaded import SingleRows

Array = np.ndarray

TOGETHER = 6
"""Rows from which on one array is quicker than a walk for each."""

_NUMBERS = {int, float}
_WHOLE = {int}


def load(folder: Path, spec: Mapping[str, Any], reader: Mapping[str, Any], score: Form) -> SingleRows | None:
    """For the form in `folder`; None where its columns are not all of fractions, or trees follow other steps.

    `spec`: as `forms.scores` takes it, which gave `score`; `reader`: see `compiled.reader`.
    """
    trees = spec["score"]["kind"] == "trees"
    kind = "f" if trees else "d"  # trees compare floats of 32 bits
    if not _takes(reader, kind) or (trees and spec["steps"]):
        return None
    packed = struct.Struct(f"={width(reader)}{kind}")
    classes = forms.classes(folder)
    bodies = _bodies(spec["decide"], classes)

    def together(rows: Sequence[bytes]) -> list[bytes]:
        return bodies(score(np.frombuffer(b"".join(rows), kind).reshape(len(rows), -1)))

    if not spec["score"].get("walked"):
        return SingleRows(_read(reader, packed), together)
    nodes, roots, values, start = (forms.stored(folder, name) for name in ("nodes", "offsets", "values", "start"))
    walk = walking.scores(nodes, roots.tolist(), values, start, mean=spec["score"]["mean"])
    body = _body(spec["decide"], classes, bodies, values.dtype)

    def answer(rows: Sequence[bytes]) -> list[bytes] | None:
        if len(rows) >= TOGETHER:
            return together(rows)
        try:
            return [body(walk(packed.unpack(row))) for row in rows]
        except OverflowError:
            return None

    return SingleRows(_read(reader, packed), answer)


def _takes(reader: Mapping[str, Any], kind: str) -> bool:
    """Whether numbers reach the form as they come, but for what their rounding to `kind` does, too."""
    if reader["kind"] == "columns":
        return set(reader["kinds"]) <= ({"float", "double"} if kind == "f" else {"double"})
    if reader["kind"] == "tensor":
        dtype = np.dtype(reader["dtype"])
        return bool(reader["shape"][0] < 0 and (dtype.kind == "f" if kind == "f" else dtype == np.float64))
    return True


def width(reader: Mapping[str, Any]) -> int:
    """Numbers in a row; `reader`: see `compiled.reader`."""
    if reader["kind"] == "tensor":
        return int(reader["shape"][1])
    return int(reader["width"]) if reader["kind"] == "untyped" else len(reader["names"])


def _read(reader: Mapping[str, Any], packed: struct.Struct) -> Callable[[Any], bytes | None]:
    names, untyped, count = reader.get("names"), reader["kind"] == "untyped", width(reader)
    keys = None if names is None else [str(name) for name in names]

    def read(data: Any) -> bytes | None:
        if type(data) is not list or len(data) != 1:
            return None
        row = data[0]
        if keys is not None and type(row) is dict:
            row = [row.get(key) for key in keys]
        if type(row) is not list or len(row) != count:
            return None
        kinds = set(map(type, row))
        # Without types, whole numbers alone are read as such, which rounds large ones otherwise.
        if not kinds <= _NUMBERS or (untyped and kinds == _WHOLE):
            return None
        try:
            return packed.pack(*row) if math.isfinite(sum(row)) else None
        except (struct.error, OverflowError):  # a number is too large
            return None

    return read


def _bodies(decide: str, classes: Array | None) -> Callable[[Array], list[bytes]]:
    """From scores of rows to the bodies of their answers; each class's is made once."""
    if classes is None:
        named = forms.decision(decide, None)

        def bodies(scores: Array) -> list[bytes]:
            predictions = named(scores)
            return [encode(predictions[row : row + 1]) for row in range(len(predictions))]

        return bodies
    of_classes = _of_classes(classes)
    numbered = forms.decision(decide, np.arange(len(classes)))
    return lambda scores: [of_classes[number] for number in numbered(scores).tolist()]


def _body(
    decide: str, classes: Array | None, bodies: Callable[[Array], list[bytes]], dtype: np.dtype
) -> Callable[[Sequence[float]], bytes]:
    """As `bodies`, for one row."""
    if decide != "class":
        return lambda scores: bodies(np.array([scores], dtype))[0]
    assert classes is not None
    of_classes = _of_classes(classes)

    def body(scores: Sequence[float]) -> bytes:
        return of_classes[scores.index(max(scores)) if len(scores) > 1 else scores[0] > 0]

    return body


def _of_classes(classes: Array) -> list[bytes]:
    return [encode(classes[number : number + 1]) for number in range(len(classes))]
