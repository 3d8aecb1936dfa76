"""An ONNX file with one node, the trees of a model: which leaf each tree sends a row to.

The messages and their field numbers: https://github.com/onnx/onnx/blob/v1.17.0/onnx/onnx.proto3; the operator:
https://onnx.ai/onnx/operators/onnx_aimlonnx_TreeEnsembleRegressor.html. It is written here because the packages that
write such files must not enter a model's environment, where they would move the versions of what was posted.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_FLOAT = 1
_IR_VERSION, _OPSET, _ML_OPSET = 8, 17, 3

Array = np.ndarray


@dataclass(frozen=True)
class Tree:
    """One tree. Arrays of one entry a node; the root is the first.

    `left`, `right`: nodes, -1 at a leaf; left is taken where the feature is `<=` (of a `strict` tree: `<`) the
    threshold, and where it is missing and `missing_left`. `values`: shape (nodes, outputs), read at leaves.
    """

    left: Array
    right: Array
    feature: Array
    threshold: Array
    missing_left: Array
    values: Array
    strict: bool = False

    @property
    def largest_left(self) -> Array:
        """By node, the largest number of the threshold's dtype that goes left."""
        below = np.nextafter(self.threshold, self.threshold.dtype.type(-np.inf))
        return below if self.strict else self.threshold


def leaf_finder(trees: list[Tree], features: int) -> bytes:
    """The file. Input `x`: shape (rows, features), floats; output `leaf`: shape (rows, trees), floats.

    A leaf is told by its node's number, which a float holds exactly up to 2**24. Raises ValueError for a larger tree.
    """
    if any(len(tree.left) > 1 << 24 for tree in trees):
        raise ValueError("a tree has more than 2**24 nodes")
    sizes = [len(tree.left) for tree in trees]
    of_tree = np.repeat(np.arange(len(trees)), sizes)
    node = np.concatenate([np.arange(size) for size in sizes])
    left, right, feature, missing = (
        np.concatenate([getattr(tree, name) for tree in trees]).astype(np.int64)
        for name in ("left", "right", "feature", "missing_left")
    )
    leaf = left < 0
    threshold = np.where(leaf, 0, np.concatenate([tree.threshold for tree in trees]))
    modes = [
        b"LEAF" if at_leaf else mode
        for tree in trees
        for mode in (b"BRANCH_LT" if tree.strict else b"BRANCH_LEQ",)
        for at_leaf in (tree.left < 0).tolist()
    ]
    weights = node[leaf]
    attributes = [
        _integer("n_targets", len(trees)),
        _string("post_transform", b"NONE"),
        _integers("nodes_treeids", of_tree),
        _integers("nodes_nodeids", node),
        _integers("nodes_featureids", np.where(leaf, 0, feature)),
        _integers("nodes_truenodeids", np.where(leaf, 0, left)),
        _integers("nodes_falsenodeids", np.where(leaf, 0, right)),
        _integers("nodes_missing_value_tracks_true", np.where(leaf, 0, missing)),
        _strings("nodes_modes", modes),
        _integers("target_treeids", of_tree[leaf]),
        _integers("target_nodeids", node[leaf]),
        _integers("target_ids", of_tree[leaf]),
        _floats("nodes_values", threshold.astype(np.float32)),
        _floats("target_weights", weights.astype(np.float32)),
    ]
    operator = b"".join(
        [
            _bytes(1, b"x"),
            _bytes(2, b"leaf"),
            _bytes(4, b"TreeEnsembleRegressor"),
            *(_bytes(5, attribute) for attribute in attributes),
            _bytes(7, b"ai.onnx.ml"),
        ]
    )
    graph = b"".join(
        [
            _bytes(1, operator),
            _bytes(2, b"leaves"),
            _bytes(11, _value(b"x", features)),
            _bytes(12, _value(b"leaf", len(trees))),
        ]
    )
    opsets = (_number(2, _OPSET), _bytes(1, b"ai.onnx.ml") + _number(2, _ML_OPSET))
    return b"".join([_number(1, _IR_VERSION), _bytes(7, graph), *(_bytes(8, opset) for opset in opsets)])


def _value(name: bytes, width: int) -> bytes:
    """ValueInfoProto of a tensor of floats with shape (any, width)."""
    shape = _bytes(1, _bytes(2, b"rows")) + _bytes(1, _number(1, width))
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, _FLOAT) + _bytes(2, shape)))


def _attribute(name: str, kind: int, content: bytes) -> bytes:
    return _bytes(1, name.encode()) + content + _number(20, kind)


def _integer(name: str, value: int) -> bytes:
    return _attribute(name, 2, _number(3, value))


def _string(name: str, value: bytes) -> bytes:
    return _attribute(name, 3, _bytes(4, value))


def _floats(name: str, values: Array) -> bytes:
    return _attribute(name, 6, _bytes(7, values.tobytes()))


def _integers(name: str, values: Array) -> bytes:
    return _attribute(name, 7, _bytes(8, b"".join(map(_varint, values.tolist()))))


def _strings(name: str, values: Iterable[bytes]) -> bytes:
    return _attribute(name, 8, b"".join(_bytes(9, value) for value in values))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Of a number that is not negative (https://protobuf.dev/programming-guides/encoding/#varints)."""
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
