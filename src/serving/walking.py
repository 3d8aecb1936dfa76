"""Scores one row in Python: by a few small trees, sooner than a call of ONNX Runtime begins."""

import math
from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import Any

import numpy as np

from .onnx_file import Tree

Array = np.ndarray
Scores = Callable[[Sequence[float]], list[float]]
"""From a row of finite numbers to its score for each output. Raises OverflowError."""

STEPS = 200
"""Nodes of all trees on the way of a row, roughly, from which on ONNX Runtime is as quick."""

NODES = 1 << 14
"""Of all trees; they take about 150 bytes each."""

_LEAF = -1
_FLOAT = Struct("f")


def nodes(trees: Sequence[Tree]) -> Array | None:
    """The trees as an array of shape (nodes, 4), doubles: feature (-1 at a leaf), threshold, left and right.

    None for too many or too large ones, and where a node comes before the one above it. Left is taken where the feature
    is `<=` the threshold.
    """
    if sum(len(tree.left) for tree in trees) > NODES or sum(math.log2(len(tree.left)) for tree in trees) > STEPS:
        return None
    parts, begin = [], 0
    for tree in trees:
        inner, own = tree.left >= 0, np.arange(len(tree.left))
        if not (np.minimum(tree.left, tree.right)[inner] > own[inner]).all():
            return None
        feature = np.where(inner, tree.feature, _LEAF)
        columns = [feature, tree.largest_left, tree.left + begin, tree.right + begin]
        parts.append(np.stack([np.asarray(column, np.float64) for column in columns], axis=1))
        begin += len(own)
    return np.concatenate(parts)


def scores(found: Array, roots: Sequence[int], values: Array, start: Array, *, mean: bool) -> Scores:
    """How `nodes` are walked; `roots`: the first of each tree. The results are, to the last bit, those of `forms`."""
    trees, count = _nested(found, roots, values.tolist()), len(roots) if mean else 1
    # What is added to it stays as it is, unlike with zero: a negative zero does, too.
    begin = start.tolist() if start.any() else [-0.0] * len(start)
    score = _mean_of_doubles if values.dtype == np.float64 else _mean_of_floats

    def walk(row: Sequence[float]) -> list[float]:
        reached = []
        for feature, threshold, left, right in trees:
            while feature >= 0:
                feature, threshold, left, right = left if row[feature] <= threshold else right
            reached.append(threshold)
        return [score(first, column, count) for first, column in zip(begin, zip(*reached))]  # noqa: B905 - it is slower

    return walk


def _mean_of_doubles(total: float, values: Iterable[float], count: int) -> float:
    for value in values:
        total += value
    return total / count


def _mean_of_floats(total: float, values: Iterable[float], count: int) -> float:
    """Sums of two floats, and quotients, are those of doubles, rounded. Raises OverflowError."""
    for value in values:
        (total,) = _FLOAT.unpack(_FLOAT.pack(total + value))
    (found,) = _FLOAT.unpack(_FLOAT.pack(total / count))
    return float(found)


def _nested(found: Array, roots: Sequence[int], values: Sequence[Any]) -> list[Any]:
    """Nodes as (feature, threshold, left, right), leaves as (-1, values, None, None).

    Nested, as to follow a reference is quicker than to look up a number.
    """
    made: list[Any] = [None] * len(found)
    features, lefts, rights = (found[:, column].astype(int).tolist() for column in (0, 2, 3))
    for node, threshold in reversed(list(enumerate(found[:, 1].tolist()))):
        if features[node] == _LEAF:
            made[node] = (_LEAF, values[node], None, None)
        else:
            made[node] = (features[node], threshold, made[lefts[node]], made[rights[node]])
    return [made[root] for root in roots]
