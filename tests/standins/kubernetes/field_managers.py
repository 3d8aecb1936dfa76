"""Who owns which field of an object, after it was not applied but created or edited.

The real provider creates objects with POST, which makes it the manager `pulumi-kubernetes` by *update*. Before its
first apply it takes those fields over, and those of kubectl; nobody else's, so theirs end in a conflict.
"""

from typing import Any, Final

from .types import Manifest

CREATOR: Final = "pulumi-kubernetes"

_TAKEN_OVER: Final = (
    ("kubectl", "Apply"),
    ("kubectl", "Update"),
    ("before-first-apply", "Update"),
    ("pulumi-kubernetes", "Update"),
    ("pulumi-resource-kubernetes", "Update"),
)
"""Beginning of the manager's name, and its operation."""


def takeover(live: Manifest, manager: str) -> list[Manifest]:
    """The JSON patch that gives `manager` those fields; empty where there are none."""
    entries: list[Manifest] = live["metadata"].get("managedFields", [])
    own = next((entry for entry in entries if _is(entry, manager, "Apply")), None)
    taken = [entry for entry in entries if entry is not own and _is_taken_over(entry)]
    if not taken:
        return []
    fields: Manifest = own["fieldsV1"] if own else {}
    for entry in taken:
        fields = _union(fields, entry["fieldsV1"])
    merged = {**(own or taken[0]), "manager": manager, "operation": "Apply", "fieldsV1": fields}
    kept = [entry for entry in entries if entry is not own and entry not in taken]
    return [
        {"op": "replace", "path": "/metadata/managedFields", "value": [*kept, merged]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
    ]


def forced(live: Manifest | None, *, asked: bool, preview: bool) -> bool:
    """Whether to overwrite what others own: when asked to, and where the fields are the provider's own from before."""
    if asked or (live is None and preview):
        return True
    entries = live["metadata"].get("managedFields", []) if live is not None else None
    if entries == []:
        return True
    names = ("pulumi-resource-kubernetes", "pulumi-kubernetes", "pulumi-kubernetes.exe")
    return preview and any(entry["manager"] in names and entry["operation"] == "Update" for entry in entries or [])


def _is(entry: Manifest, manager: str, operation: str) -> bool:
    return bool(entry["manager"] == manager and entry["operation"] == operation)


def _is_taken_over(entry: Manifest) -> bool:
    return not entry.get("subresource") and any(
        entry["manager"].startswith(name) and entry["operation"] == operation for name, operation in _TAKEN_OVER
    )


def _union(one: Any, other: Any) -> Any:
    """Of two sets of fields as `FieldsV1` has them: a tree of keys."""
    return {
        key: _union(one[key], other[key]) if key in one and key in other else one.get(key, other.get(key))
        for key in one | other
    }
