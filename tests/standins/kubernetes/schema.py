"""Objects against the API server's own OpenAPI schemas: what is wrong with one, and its normal form.

The real provider converts an object to Go types and back, so that two ways to write one thing do not differ: quantities
get one form, and zero values go that Go leaves out (`zeros.json`, from tools/kubernetes/zeros). It also loses what it
does not know, silently; here that is an error.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from . import quantities
from .types import Manifest, Type
from .values import UNKNOWN

Schemas = dict[str, Any]

_ZEROS: Final[dict[str, list[str]]] = json.loads(Path(__file__).with_name("zeros.json").read_text())
_QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_PYTHON_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}


def definition(schemas: Schemas, known: Type) -> str:
    """Name of the type's schema."""
    group, _, version = known.api_version.rpartition("/")
    wanted = {"group": group, "version": version, "kind": known.kind}
    return next(name for name, schema in schemas.items() if wanted in schema.get("x-kubernetes-group-version-kind", []))


def problems(schemas: Schemas, name: str, manifest: Manifest) -> dict[str, str]:
    """What the schema does not allow, by path. Unknown values of a preview are taken to be right."""
    return dict(_problems(schemas, {"$ref": f"#/components/schemas/{name}"}, manifest, ""))


def normal(schemas: Schemas, name: str, manifest: Manifest) -> Manifest:
    """Of an object that has no problems and no unknown values."""
    result = _normal(schemas, {"$ref": f"#/components/schemas/{name}"}, manifest)
    assert isinstance(result, dict)
    return result


def _problems(schemas: Schemas, given: Schemas, value: Any, path: str) -> Iterator[tuple[str, str]]:
    name, schema = _resolved(schemas, given)
    if value is UNKNOWN or value is None:
        return
    allowed = _types(schema)
    if allowed and (not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed)):
        yield path, f"invalid type: got {type(value).__name__}, expected {schema.get('type') or 'integer or string'}"
    elif value not in schema.get("enum", [value]):
        yield path, f"{value!r} is not one of {', '.join(map(str, schema['enum']))}"
    elif name == _QUANTITY:
        try:
            quantities.canonical(str(value))
        except ValueError as error:
            yield path, str(error)
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _problems(schemas, schema["items"], item, f"{path}[{index}]")
    elif isinstance(value, dict) and ("properties" in schema or "additionalProperties" in schema):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            below = f"{path}.{key}" if path else key
            if key in properties or others:
                yield from _problems(schemas, properties.get(key, others), item, below)
            else:
                yield below, f'unknown field "{key}" in {name}'
        for key in schema.get("required", []):
            if value.get(key) is None:
                yield path, f'missing required field "{key}" in {name}'


def _normal(schemas: Schemas, given: Schemas, value: Any) -> Any:
    name, schema = _resolved(schemas, given)
    if name == _QUANTITY:
        return quantities.canonical(str(value))
    if isinstance(value, list) and "items" in schema:
        return [_normal(schemas, schema["items"], item) for item in value]
    if isinstance(value, dict) and ("properties" in schema or "additionalProperties" in schema):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        items = {
            key: _normal(schemas, properties.get(key, others), item) for key, item in value.items() if item is not None
        }
        left_out = _ZEROS.get(name, [])
        return {key: item for key, item in items.items() if item or key not in left_out}
    return value


def _resolved(schemas: Schemas, given: Schemas) -> tuple[str, Schemas]:
    """The schema that is meant, and its name if it has one."""
    reference = given.get("$ref") or next((part["$ref"] for part in given.get("allOf", []) if "$ref" in part), None)
    if reference is None:
        return "", given
    name = reference.rpartition("/")[2]
    return name, schemas[name]


def _types(schema: Schemas) -> tuple[type, ...]:
    """Python's; none where the schema does not say."""
    names = [schema["type"]] if "type" in schema else [way["type"] for way in schema.get("oneOf", []) if "type" in way]
    return tuple(python for name in names for python in _PYTHON_TYPES[name])
