"""What an operation that died or failed left undecided in a stack's state, as `pulumi stack export` gives it.

The engine notes each creation before it asks for it, and afterwards what came of it. A process that dies in between
leaves the note, of which Pulumi only says that somebody should look. Where the name is known beforehand, so is the id.
"""

from typing import Any, Final

_NAMED: Final = ("asgard:index:Image", "aws:ecr/repository:Repository")
"""Types of resources whose id is their input `name`."""

_NAMED_BY_PULUMI: Final = "kubernetes:core/v1:Secret"
"""Type of resources of which each that a stack ever had is an object of its own."""

_LATER: Final = "9999"
"""After any time at which a resource was made."""


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


def taken_back(state: dict[str, Any]) -> bool:
    """Let the Secret that a failed update was to replace be, in place, the stack's own again; whether there was one.

    The next `up` deletes the other. Safe to repeat: the one that was made first counts.
    """
    resources = (state.get("deployment") or {}).get("resources") or []
    places = [place for place, resource in enumerate(resources) if resource["type"] == _NAMED_BY_PULUMI]
    current = [place for place in places if not resources[place].get("delete")]
    first = min(places, key=lambda place: resources[place].get("created") or _LATER, default=None)
    if len(current) != 1 or first is None or first == current[0]:
        return False
    former, newer = resources[first], resources[current[0]]
    resources[current[0]] = {key: value for key, value in former.items() if key != "delete"}
    resources[first] = {**newer, "delete": True}
    return True


def _id(resource: dict[str, Any]) -> str | None:
    inputs = resource.get("inputs") or {}
    if resource["type"] in _NAMED:
        return str(inputs["name"])
    if resource["type"].startswith("kubernetes:"):
        metadata = inputs.get("metadata") or {}
        place = [str(metadata[key]) for key in ("namespace", "name") if metadata.get(key)]
        return "/".join(place) or None
    return None
