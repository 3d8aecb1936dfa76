"""Properties as the engine sends them, and as plain Python.

A property is None, bool, int, float, str, list, dict, `Secret` or `UNKNOWN`. Wire format:
https://github.com/pulumi/pulumi/blob/master/sdk/go/common/resource/plugin/rpc.go
"""

from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime import rpc

Properties = dict[str, Any]


@dataclass(frozen=True)
class Secret:
    """A value that is encrypted wherever it is kept."""

    value: Any


class _Unknown:
    """A value that a preview cannot know yet."""

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __deepcopy__(self, memo: Any) -> "_Unknown":
        return self


UNKNOWN: Final = _Unknown()


def from_struct(struct: Struct) -> Properties:
    """Whole numbers come as int; the engine only knows doubles."""
    properties = _from_wire(json_format.MessageToDict(struct))
    assert isinstance(properties, dict)
    return properties


def to_struct(properties: Properties) -> Struct:
    struct = Struct()
    struct.update(_to_wire(properties))
    return struct


def plain(value: Any) -> Any:
    """Without the marks of secrets; a copy."""
    if isinstance(value, Secret):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def has_unknown(value: Any) -> bool:
    if isinstance(value, Secret):
        return has_unknown(value.value)
    if isinstance(value, dict):
        return any(map(has_unknown, value.values()))
    if isinstance(value, list):
        return any(map(has_unknown, value))
    return value is UNKNOWN


def has_secret(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(has_secret, value.values()))
    if isinstance(value, list):
        return any(map(has_secret, value))
    return isinstance(value, Secret)


def mark_secrets(outputs: Properties, inputs: Properties) -> Properties:
    """Outputs with what is secret in `inputs` secret: a list as a whole, and always the data of a Kubernetes Secret."""
    marked = dict(outputs)
    if outputs.get("kind") == "Secret":
        for key in ("data", "stringData"):
            if key in outputs and not isinstance(outputs[key], Secret):
                marked[key] = Secret(outputs[key])
        return marked
    for key, given in inputs.items():
        if key not in outputs:
            continue
        if isinstance(outputs[key], dict) and isinstance(given, dict):
            marked[key] = mark_secrets(outputs[key], given)
        elif has_secret(given) and not isinstance(outputs[key], Secret):
            marked[key] = Secret(outputs[key])
    return marked


def _from_wire(value: Any) -> Any:
    if isinstance(value, dict):
        signature = value.get(rpc._special_sig_key)
        if signature == rpc._special_secret_sig:
            return Secret(_from_wire(value["value"]))
        if signature is not None:
            raise ValueError(f"A Kubernetes object cannot hold this kind of property: {value}")
        return {key: _from_wire(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_from_wire(item) for item in value]
    if value == rpc.UNKNOWN:
        return UNKNOWN
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _to_wire(value: Any) -> Any:
    if isinstance(value, Secret):
        return {rpc._special_sig_key: rpc._special_secret_sig, "value": _to_wire(value.value)}
    if isinstance(value, dict):
        return {key: _to_wire(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_wire(item) for item in value]
    return rpc.UNKNOWN if value is UNKNOWN else value
