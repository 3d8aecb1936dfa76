"""Create, read, update and delete, as the real provider does them (provider/pkg/await/await.go).

Every function raises ApiFailure or Unreachable for what the cluster says no to, and AwaitFailed for an object that is
there and not as it should be.
"""

from collections.abc import Callable, Mapping
from typing import Final

from . import addresses, conditions, field_managers, jobs, metadata, rollout
from .api import ApiFailure
from .session import INFO, AwaitFailed, Operation
from .types import Manifest

_RETRIES: Final = 5

_WAITS: Final[Mapping[str, Callable[[Operation, Manifest], Manifest]]] = {
    "Deployment": rollout.wait,
    "Service": addresses.wait,
    "Job": jobs.wait,
}
_LOOKS: Final[Mapping[str, Callable[[Operation, Manifest], None]]] = {
    "Deployment": rollout.read,
    "Service": addresses.read,
    "Job": jobs.read,
}


class PreviewImpossible(Exception):
    """The cluster cannot say how the object would be; the inputs are the best that is known."""


def create(
    operation: Operation, inputs: Manifest, manager: str, *, upsert: bool, patch_force: bool, preview: bool
) -> Manifest:
    """The live object. With POST, so that one that is there already is refused; `upsert` applies instead.

    A namespace that is missing is waited for, half a minute. Raises PreviewImpossible too.
    """

    def attempt() -> Manifest:
        if not upsert:
            return operation.api.create(operation.type, inputs, field_managers.CREATOR, preview=preview)
        asked = patch_force or metadata.is_true(inputs, metadata.PATCH_FORCE)
        force = field_managers.forced(None, asked=asked, preview=preview)
        return operation.api.apply(operation.type, inputs, manager, force=force, preview=preview)

    try:
        live = _retried(operation, attempt, preview=preview)
    except ApiFailure as failure:
        if preview and (failure.code == 403 or failure.reason == "AlreadyExists" or failure.namespace_missing):
            raise PreviewImpossible from failure
        raise
    return live if preview else _ready(operation, inputs, live)


def update(
    operation: Operation, inputs: Manifest, old: Manifest, manager: str, *, patch_force: bool, preview: bool
) -> Manifest:
    """The live object, by server-side apply. `old`: it as it was. Raises PreviewImpossible too."""
    live = operation.api.get(operation.type, metadata.namespace(old), metadata.name(old))
    if not preview and (patch := field_managers.takeover(live, manager)):
        live = operation.api.patch(operation.type, metadata.namespace(live), metadata.name(live), patch)
    asked = patch_force or metadata.is_true(inputs, metadata.PATCH_FORCE)
    force = field_managers.forced(live, asked=asked, preview=preview)
    try:
        live = operation.api.apply(operation.type, inputs, manager, force=force, preview=preview)
    except ApiFailure as failure:
        if preview and failure.code == 403:
            raise PreviewImpossible from failure
        raise _explained(failure, manager) from failure
    return live if preview else _ready(operation, inputs, live)


def read(operation: Operation, inputs: Manifest, namespace: str, name: str) -> Manifest | None:
    """The live object, None when it is gone. Raises AwaitFailed too, for one that is not ready at the moment."""
    try:
        live = operation.api.get(operation.type, namespace, name)
        look = _LOOKS.get(operation.type.kind)
        if look is not None and not metadata.skips_await(inputs):
            look(operation, live)
            live = operation.api.get(operation.type, namespace, name)
    except ApiFailure as failure:
        if failure.code == 404:
            return None
        raise
    return live


def delete(operation: Operation, inputs: Manifest, live: Manifest, name: str) -> None:
    """Returns when the object is gone, or was."""
    try:
        propagation = metadata.propagation(inputs)
        operation.api.delete(operation.type, metadata.namespace(live), name, propagation)
    except ApiFailure as failure:
        if failure.code == 404:
            return
        raise
    if not metadata.skips_await_on_delete(inputs):
        conditions.wait_until_gone(operation, live)


def _ready(operation: Operation, inputs: Manifest, live: Manifest) -> Manifest:
    """The object when it is what is waited for: by the annotations, else by what the provider knows of its kind."""
    if metadata.skips_await(inputs):
        return live
    wait = _WAITS.get(operation.type.kind)
    try:
        if wanted := metadata.annotation(live, metadata.WAIT_FOR):
            return conditions.wait(operation, live, wanted)
        return wait(operation, live) if wait is not None else live
    except ApiFailure as failure:
        raise AwaitFailed(f"the real provider would wait without end: {failure}", live) from failure


def _retried(operation: Operation, attempt: Callable[[], Manifest], *, preview: bool) -> Manifest:
    """What is not found, such as a namespace, may be on its way."""
    pause = 1.0
    for retry in range(_RETRIES):
        try:
            return attempt()
        except ApiFailure as failure:
            if failure.code != 404 or (preview and failure.namespace_missing):
                raise
            operation.log.status(operation.urn, INFO, f"Retry #{retry}; creation failed: {failure}")
        if operation.cancelled.wait(pause):
            break
        pause *= 2
    return attempt()


def _explained(failure: ApiFailure, manager: str) -> ApiFailure:
    if failure.reason != "Conflict":
        return failure
    text = (
        "server-side apply field conflict detected, see https://www.pulumi.com/registry/packages/kubernetes/"
        "how-to-guides/managing-resources-with-server-side-apply/#handle-field-conflicts-on-existing-resources for "
        f'troubleshooting help\nThe resource managed by field manager "{manager}" had an apply conflict: {failure}'
    )
    return ApiFailure({"code": failure.code, "reason": failure.reason, "message": text})
