"""Answers one row, from parsed JSON to the body, in plain Python: NumPy's calls for one row take several times as long.

Only what a few small trees compute (see `walking`), of a row of finite numbers. It is compared with the form's answers
to the last byte when a model is compiled.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import forms, walking
from .arrays import encode
from .loaded import SingleRow

Array = np.ndarray

_NUMBERS = {int, float}
_WHOLE = {int}


def load(folder: Path, spec: Mapping[str, Any], reader: Mapping[str, Any]) -> SingleRow | None:
    """What answers one row for the form in `folder`. `spec`: as `forms.load` takes it; `reader`: see `compiled.reader`.

    None: nothing does, as the trees are many, or the columns are not all of fractions.
    """
    cells = _cells(reader)
    if cells is None or spec["steps"] or not spec["score"].get("walked"):
        return None
    nodes, roots, values, start = (forms.stored(folder, name) for name in ("nodes", "offsets", "values", "start"))
    scores = walking.scores(nodes, roots.tolist(), values, start, mean=spec["score"]["mean"])
    body = _body(spec["decide"], forms.classes(folder), values.dtype)

    def single(data: Any) -> bytes | None:
        try:
            row = cells(data)
            return body(scores(row)) if row is not None and math.isfinite(sum(row)) else None
        except (struct.error, OverflowError):  # a number is too large
            return None

    return single


def _cells(reader: Mapping[str, Any]) -> Callable[[Any], Sequence[float] | None] | None:
    """Of the only row, rounded to floats of 32 bits, with which trees compare; None for other data."""
    kind, names = reader["kind"], reader.get("names")
    if kind == "columns" and not set(reader["kinds"]) <= {"float", "double"}:
        return None
    if kind == "tensor" and (np.dtype(reader["dtype"]).kind != "f" or reader["shape"][0] >= 0):
        return None
    width = reader["shape"][1] if kind == "tensor" else reader["width"] if kind == "untyped" else len(reader["names"])
    keys = None if names is None else [str(name) for name in names]
    floats = struct.Struct(f"{width}f")

    def cells(data: Any) -> Sequence[float] | None:
        if type(data) is not list or len(data) != 1:
            return None
        row = data[0]
        if keys is not None and type(row) is dict:
            row = [row.get(key) for key in keys]
        if type(row) is not list or len(row) != width:
            return None
        kinds = set(map(type, row))
        # Without types, whole numbers alone are read as such, which rounds large ones otherwise.
        if not kinds <= _NUMBERS or (kind == "untyped" and kinds == _WHOLE):
            return None
        return floats.unpack(floats.pack(*row))

    return cells


def _body(decide: str, classes: Array | None, dtype: np.dtype) -> Callable[[Sequence[float]], bytes]:
    """From scores to the answer's body; each class's is made once."""
    named = forms.decision(decide, classes)
    if decide != "class":
        return lambda scores: encode(named(np.array([scores], dtype)))
    assert classes is not None
    bodies = [encode(classes[index : index + 1]) for index in range(len(classes))]

    def body(scores: Sequence[float]) -> bytes:
        return bodies[scores.index(max(scores)) if len(scores) > 1 else scores[0] > 0]

    return body
