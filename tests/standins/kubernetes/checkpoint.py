"""What the provider keeps of an object in Pulumi's state: all that is live, and the inputs under `__inputs`."""

import base64
import binascii
import secrets
from typing import Any, Final

from . import metadata
from .pruning import pruned
from .schema import Schemas, normal
from .types import Manifest
from .values import Properties, has_unknown, mark_secrets, plain

INPUTS: Final = "__inputs"
API_VERSION: Final = "__initialApiVersion"
FIELD_MANAGER: Final = "__fieldManager"


def checkpoint(inputs: Manifest, live: Manifest, given: Properties, manager: str) -> Properties:
    """`given`: the inputs with their secrets marked."""
    marked = mark_secrets(live, given)
    return {
        **marked,
        INPUTS: mark_secrets(inputs, given),
        API_VERSION: inputs["apiVersion"],
        FIELD_MANAGER: manager,
    }


def parsed(state: Properties) -> tuple[Manifest, Manifest]:
    """The old inputs and what was live, both plain. What is live keeps the provider's own keys, as in the real one."""
    live = plain(state)
    return live.pop(INPUTS, {}), live


def manager_of(state: Properties, inputs: Manifest) -> str:
    """Name under which fields are applied: of the annotation, of the state, or a new one."""
    return (
        metadata.annotation(inputs, metadata.PATCH_FIELD_MANAGER)
        or state.get(FIELD_MANAGER)
        or f"pulumi-kubernetes-{secrets.token_hex(4)}"
    )


def normalized(inputs: Manifest, schemas: Schemas | None, definition: str) -> Manifest:
    """Inputs in their one form; only without read-only fields where a preview does not know all of them.

    `schemas`: None when there is no cluster to ask.
    """
    if not has_unknown(inputs):
        if inputs.get("kind") == "Secret":
            inputs = _normal_secret(inputs)
        elif schemas is not None:
            inputs = pruned(normal(schemas, definition, inputs), inputs)
    return metadata.without_read_only(inputs)


def _normal_secret(inputs: Manifest) -> Manifest:
    """`stringData` becomes `data`, as the API server does; base64 without line breaks."""
    strings: dict[str, str] = inputs.get("stringData") or {}
    if strings:
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in strings.items()}
        rest = {key: value for key, value in inputs.items() if key != "stringData"}
        return {**rest, "data": {**(inputs.get("data") or {}), **encoded}}
    if inputs.get("data"):
        return {**inputs, "data": {key: _one_line(value) for key, value in inputs["data"].items()}}
    return inputs


def _one_line(value: Any) -> Any:
    try:
        return base64.b64encode(base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)).decode()
    except (AttributeError, binascii.Error, ValueError):
        return value  # The API server refuses it.
