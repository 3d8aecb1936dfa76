"""Creations that a dead engine left undecided in a stack's state, as `pulumi stack export` gives it.

The engine notes each creation before it asks for it, and afterwards what came of it. A process that dies in between
leaves the note, of which Pulumi only says that somebody should look. Where the name is known beforehand, so is the id.
"""

from typing import Any, Final

_NAMED: Final = ("asgard:index:Image", "aws:ecr/repository:Repository")
"""Types of resources whose id is their input `name`."""


def taken_over(state: dict[str, Any]) -> bool:
    """Take them, in place, among the resources as if they had been made; whether there were any.

    A refresh then drops the ones that were not, and finds out how the others are. The state is then one that `up` and
    `destroy` can work with.
    """
    deployment = state.get("deployment") or {}
    resources = deployment.setdefault("resources", [])
    creations = [item["resource"] for item in deployment.get("pending_operations") or () if item["type"] == "creating"]
    for resource in creations:
        identifier = _id(resource)
        known = [other for other in resources if other["urn"] == resource["urn"]]
        if identifier is None or any(other.get("id") == identifier for other in known):
            continue
        # A replacement: what it was to replace is still the one that the stack has.
        resources.append({**resource, "id": identifier, **({"delete": True} if known else {})})
    deployment.pop("pending_operations", None)
    return bool(creations)


def _id(resource: dict[str, Any]) -> str | None:
    inputs = resource.get("inputs") or {}
    if resource["type"] in _NAMED:
        return str(inputs["name"])
    if resource["type"].startswith("kubernetes:"):
        metadata = inputs.get("metadata") or {}
        place = [str(metadata[key]) for key in ("namespace", "name") if metadata.get(key)]
        return "/".join(place) or None
    return None
