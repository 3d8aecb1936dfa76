"""Leaves found for all trees and rows at once are those that a walk down each tree reaches."""

import numpy as np
import pytest

from asgard.serving import bitvectors
from asgard.serving.onnx_file import Tree

ODD = [np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45, 3e38]


def grown(random: np.random.Generator, leaves: int, *, strict: bool, features: int = 3) -> Tree:
    """A tree with so many leaves, split at random; its leaves' values are its nodes' numbers."""
    left, right = [-1], [-1]
    while left.count(-1) < leaves:
        node = random.choice(np.flatnonzero(np.array(left) < 0))
        left[node], right[node] = len(left), len(left) + 1
        if random.random() < 0.5:
            left[node], right[node] = right[node], left[node]
        left += [-1, -1]
        right += [-1, -1]
    count = len(left)
    threshold = random.choice([*random.normal(size=4), 0.0, -0.0], size=count).astype(np.float32)
    feature, missing = random.integers(0, features, count), random.random(count) < 0.5
    values = np.arange(count, dtype=np.float32)[:, None]
    return Tree(np.array(left), np.array(right), feature, threshold, missing, values, strict)


def reached(tree: Tree, row: np.ndarray) -> int:
    node = 0
    while tree.left[node] >= 0:
        value, threshold = row[tree.feature[node]], tree.threshold[node]
        goes_left = value < threshold if tree.strict else value <= threshold
        if np.isnan(value):
            goes_left = tree.missing_left[node]
        node = int(tree.left[node] if goes_left else tree.right[node])
    return node


def rows_around(trees: list[Tree], random: np.random.Generator) -> np.ndarray:
    thresholds = np.unique(np.concatenate([tree.threshold for tree in trees]))
    beside = [np.nextafter(thresholds, np.float32(to)) for to in (-np.inf, np.inf)]
    values = np.concatenate([thresholds, *beside, np.array(ODD, np.float32), random.normal(size=20)])
    return random.choice(values.astype(np.float32), size=(300, 3))


@pytest.mark.parametrize("strict", [False, True], ids=["left where it is at most", "left where it is less"])
@pytest.mark.parametrize("leaves", [1, 2, 8, 9, 16, 17, 32, 33, 63, 64])
def test_the_leaves_are_those_that_a_walk_reaches(leaves: int, strict: bool) -> None:
    random = np.random.default_rng(leaves)
    trees = [grown(random, some, strict=strict) for some in (leaves, 1, max(1, leaves // 2), leaves)]
    found = bitvectors.tables(trees)
    assert found is not None
    rows = rows_around(trees, random)
    values = np.concatenate([tree.values[:, 0] for tree in trees])[found["leaf_nodes"]]
    expected = [[reached(tree, row) for row in rows] for tree in trees]
    find = bitvectors.finder(found)
    assert values[find(rows)].tolist() == expected
    for number in range(len(rows)):
        assert values[find(rows[number : number + 1])][:, 0].tolist() == [of_tree[number] for of_tree in expected]


def test_a_tree_of_more_than_64_leaves_is_left_to_onnx_runtime() -> None:
    random = np.random.default_rng(0)
    assert bitvectors.tables([grown(random, 2, strict=False), grown(random, 65, strict=False)]) is None


def test_trees_that_ask_for_many_features_are_left_to_onnx_runtime() -> None:
    random = np.random.default_rng(0)
    few, many = ([grown(random, 64, strict=False, features=n) for _ in range(20)] for n in (16, 17))
    assert bitvectors.tables(few) is not None
    assert bitvectors.tables(many) is None


def test_large_tables_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    trees = [grown(np.random.default_rng(0), 64, strict=False) for _ in range(20)]
    assert bitvectors.tables(trees) is not None
    monkeypatch.setattr(bitvectors, "TABLE_BYTES", 1000)
    assert bitvectors.tables(trees) is None
