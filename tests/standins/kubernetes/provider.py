"""The five steps of a resource's life, between the engine's properties and the cluster's objects.

provider/pkg/provider/provider.go in pulumi/pulumi-kubernetes, for the types of `types.TYPES`.
"""

import time
from dataclasses import dataclass
from typing import Any

from pulumi.runtime.proto import provider_pb2

from . import checkpoint, diff, metadata, operations, schema, types
from .api import ApiFailure, Unreachable
from .conditions import BadCondition
from .pruning import pruned
from .session import AwaitFailed, Operation, Session
from .types import Manifest, Type
from .values import UNKNOWN, Properties, has_unknown, mark_secrets, plain


class Failed(Exception):
    """The step was not done."""


class Partial(Exception):
    """The object is there and not as it should be: it is kept in the state, with why it is not."""

    def __init__(self, message: str, object_id: str, state: Properties, reasons: list[str]) -> None:
        super().__init__(message)
        self.object_id = object_id
        self.state = state
        self.reasons = [message, *reasons]
        self.inputs: Properties | None = None


@dataclass(frozen=True)
class Difference:
    details: dict[str, diff.Detail]
    replaces: list[str]
    delete_before_replace: bool


def check(
    session: Session,
    urn: str,
    olds: Properties,
    news: Properties,
    autonaming: provider_pb2.CheckRequest.AutonamingOptions | None,
) -> tuple[Properties, dict[str, str]]:
    """The inputs in their final form, and what is wrong with them by path. Raises Failed."""
    known = _known(urn)
    if session.api is None and session.config.skip_update_unreachable:
        return olds, {}
    inputs: Manifest = plain(news)
    if problem := _identity_problem(known, inputs):
        raise Failed(problem)
    schemas, definition = _schemas(session, known)
    found = schema.problems(schemas, definition, inputs) if schemas is not None else {}
    if found:
        return news, found
    inputs = checkpoint.normalized(inputs, schemas, definition)
    try:
        if olds:
            metadata.adopt_name(inputs, plain(olds))
        else:
            metadata.assign_name(inputs, urn, autonaming)
    except metadata.NamingRefused as error:
        raise Failed(str(error)) from error
    if known.namespaced and inputs.get("metadata") is not UNKNOWN and not inputs["metadata"].get("namespace"):
        inputs["metadata"]["namespace"] = session.config.namespace
    return mark_secrets(inputs, news), {}


def difference(session: Session, urn: str, olds: Properties, news: Properties) -> Difference:
    """Between the state, as the cluster last showed the object, and new inputs. Raises Failed."""
    known = _known(urn)
    schemas, definition = _schemas(session, known)
    old_inputs, live = checkpoint.parsed(olds)
    new = checkpoint.normalized(plain(news), schemas, definition)
    old = pruned(live, checkpoint.normalized(old_inputs, schemas, definition))
    named = metadata.name(new)
    _set(old, "namespace", (metadata.namespace(old) or "default") if known.namespaced else "")
    _set(new, "namespace", (metadata.namespace(new) or "default") if known.namespaced else "")
    if named:
        _set(old, "name", live["metadata"]["name"])
    forced = types.replaced_on(
        known,
        new,
        secret_mutable=session.config.secret_mutable,
        config_map_mutable=session.config.config_map_mutable,
    )
    details = diff.detailed(old, new, forced)
    replaces = diff.replaces(details)
    same_place = named == metadata.name(live) and metadata.namespace(new) == metadata.namespace(live)
    before = bool(replaces and named) and same_place and not metadata.is_true(new, metadata.AUTONAMED)
    return Difference(details, replaces, before)


def create(
    session: Session, urn: str, news: Properties, timeout: float, *, preview: bool
) -> tuple[str, Properties] | None:
    """Id and state; None where a preview can only show the inputs. Raises Failed, Partial."""
    known, inputs = _known(urn), plain(news)
    if preview and (session.api is None or has_unknown(inputs)):
        return None
    operation = _operation(session, known, urn, timeout, inputs)
    manager = checkpoint.manager_of({}, inputs)
    config = session.config
    try:
        live = operations.create(
            operation, inputs, manager, upsert=config.upsert, patch_force=config.patch_force, preview=preview
        )
    except operations.PreviewImpossible:
        return None
    except AwaitFailed as failure:
        state = checkpoint.checkpoint(inputs, failure.live, news, manager)
        message = (
            f'resource "{urn}" was successfully created, but the Kubernetes API server reported that it failed to '
            f"fully initialize or become live: {failure}"
        )
        raise Partial(message, metadata.object_id(failure.live), state, failure.reasons) from failure
    except (ApiFailure, Unreachable, BadCondition) as failure:
        message = f'resource "{urn}" was not successfully created by the Kubernetes API server: {failure}'
        raise Failed(message) from failure
    state = checkpoint.checkpoint(inputs, _shown(live, preview=preview), news, manager)
    return ("" if preview else metadata.object_id(live)), state


def update(
    session: Session, urn: str, olds: Properties, news: Properties, timeout: float, *, preview: bool
) -> Properties | None:
    """The state; None where a preview can only show the inputs. Raises Failed, Partial.

    Partial also when the cluster refused the change: as in the real provider the state then has the new inputs.
    """
    known = _known(urn)
    if preview and (session.api is None or has_unknown(news)):
        return None
    schemas, definition = _schemas(session, known)
    inputs = checkpoint.normalized(plain(news), schemas, definition)
    operation = _operation(session, known, urn, timeout, inputs)
    _, old = checkpoint.parsed(olds)
    manager = checkpoint.manager_of(olds, inputs)
    try:
        live = operations.update(
            operation, inputs, old, manager, patch_force=session.config.patch_force, preview=preview
        )
    except operations.PreviewImpossible:
        return None
    except (AwaitFailed, ApiFailure, Unreachable, BadCondition) as failure:
        try:
            live = operation.api.get(known, metadata.namespace(old), metadata.name(old))
        except (ApiFailure, Unreachable) as unread:
            message = f'update of resource "{urn}" failed: {failure}\nunable to get cluster state: {unread}'
            raise Failed(message) from failure
        object_id = metadata.object_id(live)
        message = f'the Kubernetes API server reported that "{object_id}" failed to fully initialize or become live'
        message += f": {failure}"
        reasons = failure.reasons if isinstance(failure, AwaitFailed) else []
        state = checkpoint.checkpoint(inputs, live, news, manager)
        raise Partial(message, object_id, state, reasons) from failure
    return checkpoint.checkpoint(inputs, live, news, manager)


def read(
    session: Session, urn: str, object_id: str, old_inputs: Properties, state: Properties
) -> tuple[Properties, Properties] | None:
    """Inputs and state of what is live, None when it is gone. Raises Failed, and Partial for what is not ready."""
    known = _known(urn)
    if session.api is None:
        if session.config.delete_unreachable:
            return None
        if session.config.skip_update_unreachable:
            return old_inputs, state
        raise Failed(
            "failed to read resource state due to unreachable cluster. If the cluster was deleted, you can remove this "
            "resource from Pulumi state by rerunning the operation with the PULUMI_K8S_DELETE_UNREACHABLE environment "
            f'variable set to "true" ({session.unreachable})'
        )
    if not old_inputs:
        raise Failed("the stand-in does not import")
    namespace, name = metadata.parsed_id(object_id)
    schemas, definition = _schemas(session, known)
    shape = checkpoint.normalized(plain(old_inputs), schemas, definition)
    operation = _operation(session, known, urn, 0, shape)
    reasons: AwaitFailed | None = None
    try:
        live = operations.read(operation, shape, namespace, name)
    except AwaitFailed as failure:
        live, reasons = failure.live, failure
    except (ApiFailure, Unreachable) as failure:
        raise Failed(str(failure)) from failure
    if live is None:
        return None
    inputs = pruned(live, shape)
    checkpointed = checkpoint.checkpoint(inputs, live, old_inputs, checkpoint.manager_of(state, shape))
    if reasons is not None:
        partial = Partial(str(reasons), object_id, checkpointed, reasons.reasons)
        partial.inputs = mark_secrets(inputs, old_inputs)
        raise partial
    return mark_secrets(inputs, old_inputs), checkpointed


def delete(session: Session, urn: str, object_id: str, state: Properties, timeout: float) -> None:
    """Raises Failed, and Partial for what is not gone in time."""
    known = _known(urn)
    if session.api is None:
        if session.config.delete_unreachable:
            return
        raise Failed(
            "configured Kubernetes cluster is unreachable. If the cluster was deleted, you can remove this resource "
            "from Pulumi state by rerunning the operation with the PULUMI_K8S_DELETE_UNREACHABLE environment variable "
            f'set to "true" ({session.unreachable})'
        )
    inputs, live = checkpoint.parsed(state)
    _, name = metadata.parsed_id(object_id)
    try:
        operations.delete(_operation(session, known, urn, timeout, inputs), inputs, live, name)
    except AwaitFailed as failure:
        kept = checkpoint.checkpoint(live, failure.live, state, checkpoint.manager_of(state, inputs))
        raise Partial(str(failure), object_id, kept, failure.reasons) from failure
    except (ApiFailure, Unreachable) as failure:
        raise Failed(str(failure)) from failure


def _known(urn: str) -> Type:
    try:
        return types.of_urn(urn)
    except types.UnknownType as error:
        raise Failed(str(error)) from error


def _identity_problem(known: Type, inputs: Manifest) -> str | None:
    given = (inputs.get("apiVersion"), inputs.get("kind"))
    if given != (known.api_version, known.kind):
        return f"{known.token} is {known.api_version} {known.kind}, not {given[0]} {given[1]}"
    described = inputs.get("metadata")
    if isinstance(described, dict) and described.get("generateName") and not described.get("name"):
        return "the `.metadata.generateName` field is not supported in Server-Side Apply mode"
    return None


def _schemas(session: Session, known: Type) -> tuple[schema.Schemas | None, str]:
    """The API server's schemas and the name of the type's; None where there is no server."""
    if session.api is None:
        return None, ""
    try:
        schemas = session.api.schemas(known.api_version)
    except (ApiFailure, Unreachable) as failure:
        raise Failed(f"Failed to fetch OpenAPI schema from the API server: {failure}") from failure
    return schemas, schema.definition(schemas, known)


def _operation(session: Session, known: Type, urn: str, timeout: float, inputs: Manifest) -> Operation:
    if session.api is None:
        raise Failed(f"configured Kubernetes cluster is unreachable: {session.unreachable}")
    deadline = time.monotonic() + metadata.timeout_seconds(timeout, inputs)
    return Operation(session.api, known, urn, session.log, session.cancelled, deadline)


def _set(manifest: Manifest, key: str, value: str) -> None:
    """In the metadata; removed when empty."""
    described: Any = manifest.setdefault("metadata", {})
    if not isinstance(described, dict):
        return
    if value:
        described[key] = value
    else:
        described.pop(key, None)


def _shown(live: Manifest, *, preview: bool) -> Manifest:
    """A program that is previewed must not read an empty status."""
    return {key: value for key, value in live.items() if key != "status"} if preview else live
