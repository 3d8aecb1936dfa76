"""What a resource type takes, and what of a change replaces it, as data; and what follows from that.

As in https://github.com/pulumi/pulumi-terraform-bridge/tree/main/pkg/tfbridge, through which the real provider runs:
`Check` refuses and fills in, `Diff` compares the recorded outputs with what the new inputs would make of them.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pulumi.runtime.rpc import UNKNOWN

Properties = dict[str, Any]

DEFAULTS: Final = "__defaults"
"""Key under which every object of the inputs lists those that the provider filled in."""

_KINDS: Final[Mapping[str, type]] = {"string": str, "boolean": bool, "strings": dict, "block": dict, "blocks": list}
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Property:
    """`strings`: a map of them; `block`: an object of `fields`; `blocks`: a list of such objects.

    `computed`: where it is not set, AWS decides and its value stays. `kept_when_missing`: the same, for a block.
    `wrong`: what is wrong with a value, or None.
    """

    kind: Literal["string", "boolean", "strings", "block", "blocks"]
    required: bool = False
    replaces: bool = False
    computed: bool = False
    kept_when_missing: bool = False
    default: str | None = None
    choices: tuple[str, ...] = ()
    at_most: int | None = None
    fields: Mapping[str, "Property"] = field(default_factory=dict)
    wrong: Callable[[str], str | None] = lambda value: None


Schema = Mapping[str, Property]


def problems(schema: Schema, inputs: Properties, where: str) -> Iterator[str]:
    """What is wrong with inputs, in the real provider's words where it has some. `where`: the resource's name."""
    for name in inputs.keys() - schema.keys():
        yield f"Invalid or unknown key. Examine values at '{where}.{name}'."
    for name, known in schema.items():
        value = inputs.get(name)
        if value is None:
            if known.required:
                yield f"Missing required property '{name}'. Examine values at '{where}'."
        elif value != UNKNOWN:
            yield from _wrong(known, value, f"{where}.{name}")


def _wrong(known: Property, value: Any, where: str) -> Iterator[str]:
    said = f"Examine values at '{where}'."
    fits = isinstance(value, _KINDS[known.kind])
    if not fits:
        yield f"expected {known.kind}, got {type(value).__name__}. {said}"
        return
    if known.choices and value not in known.choices:
        yield f"expected {where.rpartition('.')[2]} to be one of {list(known.choices)}, got {value}. {said}"
    if known.kind == "string" and (reason := known.wrong(value)):
        yield f"{reason}. {said}"
    if known.kind == "strings" and not all(isinstance(item, str) for item in value.values()):
        yield f"expected a map of strings. {said}"
    if known.at_most is not None and len(value) > known.at_most:
        yield f"Too many list items: no more than {known.at_most}. {said}"
    if known.kind == "block":
        yield from problems(known.fields, value, where)
    if known.kind == "blocks":
        for index, item in enumerate(value):
            yield from [] if item == UNKNOWN else problems(known.fields, item, f"{where}[{index}]")


def with_defaults(schema: Schema, inputs: Properties) -> Properties:
    """Inputs as `Check` gives them back: nothing that is null, defaults filled in and named."""
    filled = {name: value for name, value in inputs.items() if value is not None}
    defaults = {name: known.default for name, known in schema.items() if known.default and name not in filled}
    for name, value in filled.items():
        fields = schema[name].fields
        if schema[name].kind == "block" and value != UNKNOWN:
            filled[name] = with_defaults(fields, value)
        elif schema[name].kind == "blocks" and value != UNKNOWN:
            filled[name] = [item if item == UNKNOWN else with_defaults(fields, item) for item in value]
    return {DEFAULTS: sorted(defaults), **filled, **defaults}


def planned(schema: Schema, old: Properties, inputs: Properties) -> Properties:
    """What the inputs make of a resource whose outputs were `old` (empty for a new one); unset what AWS decides."""
    plan: Properties = {}
    for name, known in schema.items():
        value, former = inputs.get(name), old.get(name)
        if value is None:
            if former is not None and (known.computed or known.kept_when_missing):
                plan[name] = former
        elif known.kind == "block" and value != UNKNOWN:
            plan[name] = planned(known.fields, former if isinstance(former, dict) else {}, value)
        elif known.kind == "blocks" and value != UNKNOWN:
            formers = former if isinstance(former, list) else []
            plan[name] = [
                item if item == UNKNOWN else planned(known.fields, formers[i] if i < len(formers) else {}, item)
                for i, item in enumerate(value)
            ]
        else:
            plan[name] = value
    return plan


def changes(schema: Schema, old: Properties, new: Properties) -> dict[str, tuple[str, bool]]:
    """Property paths that differ: "add", "delete" or "update", and whether that replaces the resource."""
    found: dict[str, tuple[str, bool]] = {}
    for name, known in schema.items():
        for path, kind in _differences(old.get(name), new.get(name), name):
            found[path] = kind, known.replaces
    return found


def _differences(old: Any, new: Any, path: str) -> Iterator[tuple[str, str]]:
    """Not to be there and to be empty or false is the same."""
    if old == new or not (old or new):
        return
    if not old and not isinstance(new, dict | list):
        yield path, "add" if old is None else "update"
    elif not new and not isinstance(old, dict | list):
        yield path, "delete" if new is None else "update"
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            child = f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f'{path}["{key}"]'
            yield from _differences(old.get(key), new.get(key), child)
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            one, other = (items[index] if index < len(items) else None for items in (old, new))
            yield from _differences(one, other, f"{path}[{index}]")
    else:
        yield path, "add" if old is None else "delete" if new is None else "update"
