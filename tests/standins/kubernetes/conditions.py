"""Waits for what the annotation `pulumi.com/waitFor` says, and for an object to be gone.

provider/pkg/await/condition, provider/pkg/metadata/overrides.go and provider/pkg/jsonpath in pulumi/pulumi-kubernetes.
"""

import json
import re
from collections.abc import Callable
from typing import Final

import jsonpath

from . import metadata
from .api import ApiFailure
from .feed import Feed
from .session import INFO, AwaitFailed, Operation
from .types import Manifest

Condition = Callable[[Manifest], bool]

TIMED_OUT: Final = "timed out waiting for the condition"
_BRACKETS: Final = re.compile(r"\{\s*(.*?)\s*\}")


class BadCondition(Exception):
    """The annotation says nothing that can be waited for."""


def parsed(annotation: str) -> Condition:
    """One expression, or a JSON list of them that must all hold. Raises BadCondition."""
    try:
        expressions = json.loads(annotation)
    except ValueError:
        expressions = [annotation]
    if not isinstance(expressions, list) or not expressions:
        raise BadCondition("at least one condition must be specified")
    conditions = [_condition(expression) for expression in expressions]
    return lambda live: all(condition(live) for condition in conditions)


def wait(operation: Operation, current: Manifest, annotation: str) -> Manifest:
    """The object when it is as the annotation says. Raises AwaitFailed, ApiFailure, BadCondition."""
    condition, live = parsed(annotation), current
    with Feed(operation.api, metadata.namespace(current)) as feed:
        feed.subscribe(operation.type.api_version, operation.type.kind)
        operation.log.status(operation.urn, INFO, f"Waiting for {annotation}")
        for seen in feed.events(operation.deadline, operation.cancelled):
            if seen is None or seen[2]["metadata"]["name"] != current["metadata"]["name"]:
                continue
            if seen[2]["metadata"].get("generation", 0) >= live["metadata"].get("generation", 0):
                live = seen[2]
            if condition(live):
                return live
    raise AwaitFailed(TIMED_OUT, live)


def wait_until_gone(operation: Operation, current: Manifest) -> None:
    """Raises AwaitFailed, ApiFailure."""
    namespace, name = metadata.namespace(current), current["metadata"]["name"]

    def is_gone() -> bool:
        try:
            operation.api.get(operation.type, namespace, name)
        except ApiFailure as failure:
            return failure.code == 404
        return False

    with Feed(operation.api, namespace if operation.type.namespaced else "") as feed:
        feed.subscribe(operation.type.api_version, operation.type.kind)
        if is_gone():
            return
        for seen in feed.events(operation.deadline, operation.cancelled):
            # What went after it was looked at and before it was listed makes no event.
            if is_gone() if seen is None else seen[1] == "DELETED" and seen[2]["metadata"]["name"] == name:
                return
    if is_gone():
        return
    finalizers = ", ".join(current["metadata"].get("finalizers", []))
    operation.log.warn(operation.urn, f"finalizers might be preventing deletion ({finalizers})")
    raise AwaitFailed(TIMED_OUT, current)


def _condition(expression: str) -> Condition:
    if expression.startswith("jsonpath="):
        return _json_path(expression.removeprefix("jsonpath="))
    if expression.startswith("condition="):
        return _named(expression.removeprefix("condition="))
    raise BadCondition(f'expected a "jsonpath=" or "condition=" prefix, got "{expression}"')


def _named(expression: str) -> Condition:
    """`Ready` or `Ready=False`: a condition of the object's status."""
    kind, _, wanted = expression.partition("=")

    def holds(live: Manifest) -> bool:
        conditions = live.get("status", {}).get("conditions", [])
        return any(item["type"] == kind and item["status"] == (wanted or "True") for item in conditions)

    return holds


def _json_path(expression: str) -> Condition:
    """`{.path}`, which must select something, or `{.path}=value`."""
    parts = expression.replace("==", "\0").split("=")
    path, value = (part.replace("\0", "==") for part in (parts if len(parts) > 1 else [parts[0], ""])[:2])
    inner = _BRACKETS.search(path)
    if len(parts) > 2 or (len(parts) == 2 and not value) or inner is None:
        raise BadCondition(f"format should be {{.path}}=value or {{.path}}, got {expression!r}")
    text = inner[1] if inner[1].startswith("$") else f"${inner[1]}"
    try:
        compiled = jsonpath.compile(text)
    except jsonpath.JSONPathError as error:
        raise BadCondition(f"parsing {path!r}: {error}") from error

    def holds(live: Manifest) -> bool:
        observed = live.get("status", {}).get("observedGeneration")
        if observed is not None and observed < live["metadata"].get("generation", 0):
            return False
        found = compiled.findall(live)
        if not found or not value:
            return bool(found)
        if isinstance(found[0], dict | list):
            raise BadCondition(f"{path!r} has a non-primitive value ({found[0]})")
        return _text(found[0]) == value

    return holds


def _text(value: object) -> str:
    """As Go prints it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
