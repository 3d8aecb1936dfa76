"""Old and new inputs as the detailed diff that the real provider makes of a JSON merge patch.

provider/pkg/provider/provider.go (`Diff`, `convertPatchToDiff`) in pulumi/pulumi-kubernetes.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

from pulumi.runtime.proto import provider_pb2

from .types import Manifest
from .values import UNKNOWN

Path = tuple[str | int, ...]
Detail = provider_pb2.PropertyDiff

Change: TypeAlias = "tuple[Path, provider_pb2.PropertyDiff.Kind.ValueType, Any]"
"""Where, how, and the new value as the merge patch has it."""

_MISSING: Final = object()
_REPLACING: Final = {
    Detail.ADD: Detail.ADD_REPLACE,
    Detail.DELETE: Detail.DELETE_REPLACE,
    Detail.UPDATE: Detail.UPDATE_REPLACE,
}
_REPLACES: Final = frozenset(_REPLACING.values())


def merge_patch(old: Manifest, new: Manifest) -> Manifest:
    """RFC 7386: what makes `new` of `old`. Removed keys are None, and so is what a preview does not know."""
    patch: Manifest = {}
    for key, value in new.items():
        if value is UNKNOWN:
            patch[key] = None
        elif key not in old:
            patch[key] = _known(value)
        elif isinstance(value, dict) and isinstance(old[key], dict):
            if below := merge_patch(old[key], value):
                patch[key] = below
        elif not _same(old[key], value):
            patch[key] = _known(value)
    return patch | {key: None for key in old if key not in new}


def detailed(old: Manifest, new: Manifest, replaced_on: Sequence[str]) -> dict[str, Detail]:
    """Every changed property by its path, as Pulumi writes paths.

    `old`: what is live, in the shape of the old inputs. `replaced_on`: paths, a change at or below which replaces.
    """
    forced = [tuple(path.split(".")) for path in replaced_on]
    details = {}
    for path, kind, value in _changes_of_map((), merge_patch(old, new), old, new, old, in_list=False):
        replacing = any(_touches(path, value, place) for place in forced)
        details[path_text(path)] = Detail(
            kind=_REPLACING[kind] if replacing else kind, inputDiff=kind == Detail.DELETE and value is None
        )
    return details


def replaces(details: dict[str, Detail]) -> list[str]:
    """Those that replace the object."""
    return [
        path
        for path, detail in details.items()
        if detail.kind in _REPLACES or (detail.kind == Detail.DELETE and path == "metadata")
    ]


def path_text(path: Path) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif any(mark in part for mark in '."[]'):
            escaped = part.replace('"', '\\"')
            text += f'["{escaped}"]'
        else:
            text += f".{part}" if text else part
    return text


def _changes(path: Path, patch: Any, old: Any, new_input: Any, old_input: Any, *, in_list: bool) -> Iterator[Change]:
    """`patch`: the new value at the path, None where it goes or is unknown; each of the others may be missing."""
    if new_input is _MISSING and (patch is not None or old_input is _MISSING):
        return  # The cluster's own.
    if patch is None:
        if new_input is not UNKNOWN:
            yield path, Detail.DELETE, patch
        else:
            yield path, Detail.ADD if old is _MISSING else Detail.UPDATE, patch
    elif old is _MISSING:
        yield path, Detail.ADD, patch
    elif isinstance(patch, dict) and isinstance(old, dict):
        below = (old, _mapping(new_input), _mapping(old_input))
        yield from _changes_of_map(path, patch, *below, in_list=in_list)
    elif isinstance(patch, list) and isinstance(old, list):
        yield from _changes_of_list(path, patch, old, _sequence(new_input), _sequence(old_input))
    elif not _same(old, patch):
        yield path, Detail.UPDATE, patch


def _changes_of_map(
    path: Path, patch: Manifest, old: Manifest, new_input: Manifest, old_input: Manifest, *, in_list: bool
) -> Iterator[Change]:
    """In a list the patch is the whole new value, so what it has not is gone."""
    gone = [key for key in old if key not in patch] if in_list else []
    for key in [*patch, *gone]:
        others = (old.get(key, _MISSING), new_input.get(key, _MISSING), old_input.get(key, _MISSING))
        yield from _changes((*path, key), patch.get(key), *others, in_list=in_list)


def _changes_of_list(
    path: Path, patch: list[Any], old: list[Any], new_input: list[Any], old_input: list[Any]
) -> Iterator[Change]:
    for index in range(max(len(patch), len(old))):
        yield from _changes(
            (*path, index),
            _at(patch, index, None),
            _at(old, index, _MISSING),
            _at(new_input, index, None),
            _at(old_input, index, None),
            in_list=True,
        )


def _touches(path: Path, value: Any, forced: Path) -> bool:
    """Whether a change at `path`, to `value`, is one at or below `forced`."""
    if len(path) >= len(forced):
        return path[: len(forced)] == forced
    if forced[: len(path)] != path:
        return False
    for part in forced[len(path) :]:
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _known(value: Any) -> Any:
    """With None for what is unknown."""
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_known(item) for item in value]
    return None if value is UNKNOWN else value


def _same(old: Any, new: Any) -> bool:
    """As JSON has it: true is not 1."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    return bool(old == new and isinstance(old, bool) == isinstance(new, bool))


def _mapping(value: Any) -> Manifest:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _at(values: list[Any], index: int, otherwise: Any) -> Any:
    return values[index] if index < len(values) else otherwise
