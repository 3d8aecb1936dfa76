"""A live object in the shape of the inputs that made it: without what the cluster has added."""

from typing import Any

from .types import Manifest


def pruned(live: Manifest, shape: Manifest) -> Manifest:
    """What `live` has at the keys of `shape`. Values that differ in type are kept whole."""
    return {key: _value(value, shape[key]) for key, value in live.items() if key in shape}


def _value(live: Any, shape: Any) -> Any:
    if isinstance(live, dict) and isinstance(shape, dict):
        return pruned(live, shape)
    if isinstance(live, list) and isinstance(shape, list):
        return _list(live, shape)
    return live


def _list(live: list[Any], shape: list[Any]) -> list[Any]:
    """Item by item, and none beyond the shape's last."""
    if not live or not shape:
        return []
    if type(live[0]) is not type(shape[0]):
        return live
    return [item if None in (item, wanted) else _value(item, wanted) for item, wanted in zip(live, shape, strict=False)]
