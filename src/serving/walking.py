"""Finds the leaves of one row in Python: of a few small trees, sooner than a call of ONNX Runtime begins."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .onnx_file import Tree

Array = np.ndarray
Walk = Callable[[Sequence[float]], list[int]]
"""From a row, without missing values, to the leaf of each tree: its node's number among those of all trees."""

STEPS = 200
"""Nodes of all trees on the way of a row, roughly, from which on ONNX Runtime is as quick."""

NODES = 1 << 14
"""Of all trees; they take about 150 bytes each."""

_LEAF = -1


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
        below = np.nextafter(tree.threshold, tree.threshold.dtype.type(-np.inf)) if tree.strict else tree.threshold
        feature = np.where(inner, tree.feature, _LEAF)
        columns = [feature, below, tree.left + begin, tree.right + begin]
        parts.append(np.stack([np.asarray(column, np.float64) for column in columns], axis=1))
        begin += len(own)
    return np.concatenate(parts)


def walk(found: Array, roots: Sequence[int]) -> Walk:
    """How `nodes` are walked; `roots`: the first of each tree."""
    made: list[Any] = [None] * len(found)
    features, lefts, rights = (found[:, column].astype(int).tolist() for column in (0, 2, 3))
    for node, threshold in reversed(list(enumerate(found[:, 1].tolist()))):
        # Nested, as to follow a reference is quicker than to look up a number.
        if features[node] == _LEAF:
            made[node] = (_LEAF, node, None, None)
        else:
            made[node] = (features[node], threshold, made[lefts[node]], made[rights[node]])
    trees = [made[root] for root in roots]

    def leaves(row: Sequence[float]) -> list[int]:
        reached = []
        for feature, threshold, left, right in trees:
            while feature >= 0:
                feature, threshold, left, right = left if row[feature] <= threshold else right
            reached.append(threshold)
        return reached

    return leaves
