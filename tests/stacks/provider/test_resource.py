from typing import Any

import pytest

from asgard.stacks.provider.resource import changed_paths


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 2}, {"a": "update"}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a.c": "update"}),
        ({}, {"a": 1}, {"a": "add"}),
        ({"a": 1}, {}, {"a": "delete"}),
        ({"a": [1, 2]}, {"a": [1, 3]}, {"a": "update"}),
        ({"a": {"b": 1}}, {"a": 1}, {"a": "update"}),
    ],
)
def test_a_difference_is_named_by_the_deepest_path_that_differs(old: Any, new: Any, changes: dict[str, str]) -> None:
    assert changed_paths(old, new) == changes
