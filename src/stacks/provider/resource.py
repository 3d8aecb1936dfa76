"""What the provider's gRPC face asks of a resource: plain functions over plain properties."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Properties = dict[str, Any]
"""Inputs or outputs: JSON values; whole numbers are int."""


@dataclass(frozen=True)
class Resource:
    """One resource type. Functions raise to report a failure; the message is what the user reads."""

    token: str
    create: Callable[[Properties], tuple[str, Properties]]
    """inputs -> id, outputs. Safe to repeat: adopts or replaces what a lost run left."""
    read: Callable[[str, Properties, Properties], tuple[Properties, Properties] | None]
    """id, inputs, outputs (both may be empty) -> what really is, as inputs and outputs; None: gone."""
    update: Callable[[str, Properties, Properties], Properties]
    """id, new inputs, old outputs -> outputs. On failure the former state of the world is kept."""
    delete: Callable[[str, Properties], None]
    """id, outputs. Tolerates what is gone."""
    preview: Callable[[Properties, Properties], Properties]
    """new inputs, old outputs (empty for a create) -> outputs as far as they are known without doing anything."""


def changed_paths(old: Any, new: Any, path: str = "") -> dict[str, str]:
    """Property paths that differ, each "add", "delete" or "update", as Pulumi's `detailedDiff` spells them."""
    if isinstance(old, dict) and isinstance(new, dict):
        changes: dict[str, str] = {}
        for key in sorted(old.keys() | new.keys()):
            child = f"{path}.{key}" if path else key
            if key not in new:
                changes[child] = "delete"
            elif key not in old:
                changes[child] = "add"
            else:
                changes |= changed_paths(old[key], new[key], child)
        return changes
    return {} if old == new else {path: "update"}
