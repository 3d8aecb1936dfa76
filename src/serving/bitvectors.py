"""Finds the leaves of many small trees with NumPy, for all trees and rows at once.

Each leaf of a tree is a bit, the leftmost leaf the lowest. A node at which a row goes right rules out the leaves on its
left; when every node has been asked, the lowest bit that is left is the row's leaf. Nodes that compare the same feature
are sorted by threshold, so that one search tells at which of them a row goes right, and what those rule out together,
in every tree, is a row of a table. The idea is QuickScorer's: https://doi.org/10.1145/2766462.2767733.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .onnx_file import Tree

Array = np.ndarray
Find = Callable[[Array], Array]
"""From rows, an array of shape (rows, features), to the place of each tree's leaf among all, of shape (trees, rows)."""

ARRAYS = ("features", "counts", "below", "masks")
"""What `finder` takes of the arrays of `tables`."""

TABLE_BYTES = 16 * 1024**2
"""Of all tables together; larger ones are not made."""

FEATURES = 16
"""That are compared; with more ONNX Runtime is as quick, or quicker."""

_DE_BRUIJN = {8: 0x1D, 16: 0x0F65, 32: 0x077CB531, 64: 0x03F79D71B4CB0A89}
"""Numbers of so many bits; multiplied by a power of two, each has other bits at its upper end."""


def tables(trees: Sequence[Tree]) -> dict[str, Array] | None:
    """Arrays by name; None for trees that are too large or ask for too many features.

    leaf_nodes  by place, the node among those of all trees
    features    those that are compared
    counts      how many thresholds each of them has
    below       the thresholds, ascending for each feature: left is taken where it is `<=`
    masks       of shape (counts + 2 for each feature, trees), what is left of each tree's leaves: with nothing ruled
                out, with what the first threshold rules out, the first two, and so on; and where the feature is missing
    """
    if any((tree.left < 0).sum() > max(_DE_BRUIJN) for tree in trees):
        return None
    walked = [_walk(tree) for tree in trees]
    bits = next(bits for bits in _DE_BRUIJN if all(len(leaves) <= bits for leaves, _ in walked))
    dtype = np.dtype(f"uint{bits}")
    feature, below, of_tree, mask, missing_left = _inner_nodes(trees, [spans for _, spans in walked], dtype)
    features = np.unique(feature)
    thresholds = [np.unique(below[feature == one]) for one in features]
    rows = sum(len(some) + 2 for some in thresholds)
    if rows * len(trees) * dtype.itemsize > TABLE_BYTES or len(features) > FEATURES:
        return None
    masks = np.full((rows, len(trees)), ~dtype.type(0))
    begin = 0
    for one, some in zip(features, thresholds, strict=True):
        table, of_feature = masks[begin : begin + len(some) + 2], feature == one
        place = some.searchsorted(below[of_feature]) + 1
        np.bitwise_and.at(table, (place, of_tree[of_feature]), mask[of_feature])
        table[:-1] = np.bitwise_and.accumulate(table[:-1])
        right = of_feature & ~missing_left
        np.bitwise_and.at(table, (-1, of_tree[right]), mask[right])
        begin += len(table)
    return {
        "leaf_nodes": _by_place(trees, [leaves for leaves, _ in walked], bits),
        "features": features,
        "counts": np.array([len(some) for some in thresholds], np.intp),
        "below": np.concatenate([np.array([], np.float32), *thresholds]),
        "masks": masks,
    }


def finder(arrays: Mapping[str, Array]) -> Find:
    """How the arrays of `tables` are asked."""
    masks, below, end, first = arrays["masks"], arrays["below"], 0, 0
    parts = []
    for feature, count in zip(arrays["features"].tolist(), arrays["counts"].tolist(), strict=True):
        thresholds, table = below[end : end + count], masks[first : first + count + 2]
        parts.append((feature, thresholds, thresholds.tolist(), table))
        end, first = end + count, first + count + 2
    dtype, trees = masks.dtype, masks.shape[1]
    bits = dtype.itemsize * 8
    factor, shift = dtype.type(_DE_BRUIJN[bits]), dtype.type(_shift(bits))
    begins = np.arange(trees, dtype=np.intp) * bits

    def find(rows: Array) -> Array:
        left = np.full((len(rows), trees), ~dtype.type(0))
        (rule_out_of_one if len(rows) == 1 else rule_out)(left, rows)
        left &= np.negative(left)
        left *= factor
        left >>= shift
        places = left.astype(np.intp)
        places += begins
        return places.T

    def rule_out(left: Array, rows: Array) -> None:
        odd = np.isnan(rows)
        missing = odd.any()
        for feature, thresholds, _, table in parts:
            place = thresholds.searchsorted(rows[:, feature])
            if missing:
                place += odd[:, feature]
            left &= table.take(place, axis=0)

    def rule_out_of_one(left: Array, rows: Array) -> None:
        (row,) = rows.tolist()
        for feature, _, thresholds, table in parts:
            value = row[feature]
            left &= table[-1 if value != value else bisect_left(thresholds, value)]

    return find


def _walk(tree: Tree) -> tuple[list[int], dict[int, tuple[int, int]]]:
    """The leaves' nodes, from left to right; by inner node, the begin and the end in them of what is on its left."""
    leaves: list[int] = []
    spans: dict[int, tuple[int, int]] = {}

    def visit(node: int) -> None:
        if tree.left[node] < 0:
            leaves.append(node)
            return
        begin = len(leaves)
        visit(int(tree.left[node]))
        spans[node] = begin, len(leaves)
        visit(int(tree.right[node]))

    visit(0)
    return leaves, spans


def _inner_nodes(
    trees: Sequence[Tree], spans: Sequence[Mapping[int, tuple[int, int]]], dtype: np.dtype
) -> tuple[Array, Array, Array, Array, Array]:
    """Of all trees: feature, threshold, tree, the leaves that are left where a row goes right, `missing_left`."""
    full = int(~dtype.type(0))
    found = [
        (tree.feature[node], below[node], number, full ^ (1 << end) - (1 << begin), tree.missing_left[node])
        for number, (tree, of_nodes) in enumerate(zip(trees, spans, strict=True))
        for below in (tree.largest_left,)
        for node, (begin, end) in of_nodes.items()
    ]
    feature, threshold, of_tree, mask, missing_left = zip(*found, strict=True) if found else [()] * 5
    return (
        np.array(feature, np.intp),
        np.array(threshold, np.float32),
        np.array(of_tree, np.intp),
        np.array(mask, dtype),
        np.array(missing_left, bool),
    )


def _by_place(trees: Sequence[Tree], leaves: Sequence[Sequence[int]], bits: int) -> Array:
    """The leaf of each bit, where `finder` gives it: multiplied, shifted, after those of the trees before."""
    found = np.zeros((len(trees), bits), np.intp)
    places = [((_DE_BRUIJN[bits] << bit) % (1 << bits)) >> _shift(bits) for bit in range(bits)]
    begin = 0
    for number, (tree, nodes) in enumerate(zip(trees, leaves, strict=True)):
        found[number, places[: len(nodes)]] = np.array(nodes) + begin
        begin += len(tree.left)
    return found.ravel()


def _shift(bits: int) -> int:
    """By which a product with a De Bruijn number becomes a number below `bits`."""
    return bits - bits.bit_length() + 1
