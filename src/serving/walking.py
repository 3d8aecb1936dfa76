"""Finds the leaves of one row in Python: of a few small trees, sooner than a call of ONNX Runtime begins."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from .onnx_file import Tree

Array = np.ndarray
Walk = Callable[[Sequence[float]], list[int]]
"""From a row, without missing values, to the leaf of each tree: its node's number among those of all trees."""

STEPS = 200
"""Nodes of all trees on the way of a row, roughly, from which on ONNX Runtime is as quick."""

NODES = 1 << 14
"""Of all trees; they take about 100 bytes each."""


def nodes(trees: Sequence[Tree]) -> Array | None:
    """The trees as an array of shape (nodes, 4), doubles: feature (-1 at a leaf), threshold, left and right.

    None for too many or too large ones. Left is taken where the feature is `<=` the threshold.
    """
    if sum(len(tree.left) for tree in trees) > NODES or sum(math.log2(len(tree.left)) for tree in trees) > STEPS:
        return None
    parts, begin = [], 0
    for tree in trees:
        leaf = tree.left < 0
        threshold = np.nextafter(tree.threshold, tree.threshold.dtype.type(-np.inf)) if tree.strict else tree.threshold
        part = np.stack([tree.feature, threshold, tree.left + begin, tree.right + begin], axis=1, dtype=np.float64)
        part[leaf, 0] = -1
        parts.append(part)
        begin += len(tree.left)
    return np.concatenate(parts)


def walk(found: Array, roots: Sequence[int]) -> Walk:
    """How `nodes` are walked; `roots`: the first of each tree."""
    feature, left, right = (found[:, column].astype(int).tolist() for column in (0, 2, 3))
    threshold = found[:, 1].tolist()

    def leaves(row: Sequence[float]) -> list[int]:
        reached = []
        for node in roots:
            compared = feature[node]
            while compared >= 0:
                node = left[node] if row[compared] <= threshold[node] else right[node]
                compared = feature[node]
            reached.append(node)
        return reached

    return leaves
