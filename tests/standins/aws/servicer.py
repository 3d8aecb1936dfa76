"""The gRPC face of the stand-in.

Protocol: https://github.com/pulumi/pulumi/blob/master/proto/pulumi/provider.proto
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import grpc
from botocore.exceptions import BotoCoreError, ClientError
from google.protobuf import json_format
from google.protobuf.empty_pb2 import Empty
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc
from pulumi.runtime.rpc import UNKNOWN

from .. import write_launcher
from . import config
from .lifecycle_policy import LIFECYCLE_POLICY
from .repository import REPOSITORY
from .resource import Refused, Resource
from .schema import DEFAULTS, Properties, changes, planned, problems, with_defaults

EXECUTABLE: Final = "pulumi-resource-aws"

_RESOURCES: Final = {resource.token: resource for resource in (REPOSITORY, LIFECYCLE_POLICY)}
_KINDS: Final = {
    ("add", False): provider_pb2.PropertyDiff.ADD,
    ("add", True): provider_pb2.PropertyDiff.ADD_REPLACE,
    ("delete", False): provider_pb2.PropertyDiff.DELETE,
    ("delete", True): provider_pb2.PropertyDiff.DELETE_REPLACE,
    ("update", False): provider_pb2.PropertyDiff.UPDATE,
    ("update", True): provider_pb2.PropertyDiff.UPDATE_REPLACE,
}
_DIFF: Final = provider_pb2.DiffResponse


class AwsServicer(provider_pb2_grpc.ResourceProviderServicer):
    """Answers engines for the two types. Several may use it at once, all in the region that was configured last."""

    def __init__(self) -> None:
        self._region: str | None = None

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "Configure says all there is to say")

    def Attach(self, request: Any, context: grpc.ServicerContext) -> Empty:
        return Empty()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=version("pulumi-aws"))

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.CheckResponse:
        news = _properties(request.news)
        return provider_pb2.CheckResponse(
            inputs=_struct(news), failures=_failures(config.problems(news, _name(request.urn)))
        )

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:
        olds, news = _properties(request.old_inputs), _properties(request.news)
        changed = sorted(name for name in olds.keys() | news.keys() if olds.get(name) != news.get(name))
        return _DIFF(changes=_DIFF.DIFF_SOME if changed else _DIFF.DIFF_NONE, diffs=changed)

    def Configure(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.ConfigureResponse:
        self._region = config.region(_properties(request.args))
        return provider_pb2.ConfigureResponse(supportsPreview=True, acceptSecrets=False, acceptResources=False)

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Empty:
        return Empty()

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the stand-in has no function {request.tok}")

    def Check(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.CheckResponse:
        with _reported(context):
            resource, news = _resource(request.urn), _properties(request.news)
            if found := list(problems(resource.inputs, news, _name(request.urn))):
                return provider_pb2.CheckResponse(failures=_failures(found))
            inputs = with_defaults(resource.inputs, news)
            if self._region and "region" not in inputs:
                inputs["region"] = self._region
            return provider_pb2.CheckResponse(
                inputs=_struct(resource.complete(inputs)), failures=_failures(resource.problems(inputs))
            )
        raise AssertionError("_reported ended the call")

    def Diff(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:
        with _reported(context):
            resource, olds, news = _resource(request.urn), _properties(request.olds), _properties(request.news)
            found = _changes(resource, olds, news)
            replacing = sorted({_top(path) for path, (_, replaces) in found.items() if replaces})
            # A name that somebody has given, and the provider did not make up, is free only after the deletion.
            named = "name" in resource.schema and "name" not in news.get(DEFAULTS, ())
            return _DIFF(
                changes=_DIFF.DIFF_SOME if found else _DIFF.DIFF_NONE,
                diffs=sorted({_top(path) for path in found}),
                replaces=replacing,
                deleteBeforeReplace=bool(replacing) and (resource.deletes_first or named),
                detailedDiff={path: provider_pb2.PropertyDiff(kind=_KINDS[change]) for path, change in found.items()},
                hasDetailedDiff=True,
            )
        raise AssertionError("_reported ended the call")

    def Create(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.CreateResponse:
        with _reported(context):
            resource, inputs = _resource(request.urn), _properties(request.properties)
            plan = resource.normal(planned(resource.schema, {}, inputs))
            if request.preview:
                unknown = dict.fromkeys(resource.outputs, UNKNOWN)
                return provider_pb2.CreateResponse(properties=_struct({**plan, **unknown}))
            client = config.client(plan["region"])
            with _explained(f"creating {resource.title} ({plan.get('name') or plan['repository']})"):
                identifier = resource.create(client, plan)
                live = resource.read(client, identifier, {})
            assert live is not None
            return provider_pb2.CreateResponse(id=identifier, properties=_struct({**plan, **live, "id": identifier}))
        raise AssertionError("_reported ended the call")

    def Read(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.ReadResponse:
        with _reported(context):
            resource, state = _resource(request.urn), _properties(request.properties)
            region = state.get("region") or self._region
            with _explained(f"reading {resource.title} ({request.id})"):
                live = resource.read(config.client(str(region)), request.id, state)
            if live is None:
                return provider_pb2.ReadResponse()
            unchanged = {name for name in live if name in state and resource.same(name, state[name], live[name])}
            known = {**live, **{name: state[name] for name in unchanged}, "region": region, "id": request.id}
            outputs = {**state, **known}
            old_inputs = _properties(request.inputs)
            # Of what is imported, all that can be set is an input; of what is known, what was one before.
            names = old_inputs.keys() & outputs.keys() if state else resource.schema.keys() & known.keys()
            return provider_pb2.ReadResponse(
                id=request.id,
                properties=_struct(outputs),
                inputs=_struct({name: outputs[name] for name in names if outputs[name] not in ({}, [], "")}),
            )
        raise AssertionError("_reported ended the call")

    def Update(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.UpdateResponse:
        with _reported(context):
            resource, olds, news = _resource(request.urn), _properties(request.olds), _properties(request.news)
            assert not any(replaces for _, replaces in _changes(resource, olds, news).values())
            plan = resource.normal(planned(resource.schema, olds, news))
            state = {**plan, **{name: olds[name] for name in (*resource.outputs, "id")}}
            if request.preview:
                return provider_pb2.UpdateResponse(properties=_struct(state))
            client = config.client(plan["region"])
            with _explained(f"updating {resource.title} ({request.id})"):
                resource.update(client, request.id, olds, plan)
                live = resource.read(client, request.id, olds)
            if live is None:
                raise Refused(
                    "Resource provider reported that the resource did not exist while updating "
                    f"{request.urn}.\n\nThis is usually a result of the resource having been deleted outside of "
                    "Pulumi, and can often be fixed by running `pulumi refresh` before updating."
                )
            return provider_pb2.UpdateResponse(properties=_struct({**state, **live}))
        raise AssertionError("_reported ended the call")

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Empty:
        with _reported(context):
            resource, state = _resource(request.urn), _properties(request.properties)
            with _explained(f"deleting {resource.title} ({request.id})"):
                resource.delete(config.client(state["region"]), request.id, state)
            return Empty()
        raise AssertionError("_reported ended the call")


def serve() -> tuple[grpc.Server, int]:
    """Listen on a free loopback port; gives the running server, and the port for `PULUMI_DEBUG_PROVIDERS`."""
    server = grpc.server(ThreadPoolExecutor(thread_name_prefix="aws-standin"))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(AwsServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def on_path(folder: Path) -> Path:
    """Put the executable into a folder that is to be on PATH, where the plain `pulumi` command finds it."""
    root = Path(__file__).parents[3]
    path = folder / EXECUTABLE
    write_launcher(path, "env", f"PYTHONPATH={root}", sys.executable, "-m", __package__)
    return path


def _resource(urn: str) -> Resource:
    token = urn.split("::")[2].split("$")[-1]
    if token not in _RESOURCES:
        raise Refused(f"unrecognized resource type: {token}; the stand-in knows {', '.join(_RESOURCES)}")
    return _RESOURCES[token]


def _name(urn: str) -> str:
    return urn.split("::")[3]


def _changes(resource: Resource, olds: Properties, news: Properties) -> dict[str, tuple[str, bool]]:
    plan = planned(resource.schema, olds, news)
    found = changes(resource.schema, olds, plan)
    return {path: change for path, change in found.items() if not resource.same(path, olds.get(path), plan.get(path))}


def _top(path: str) -> str:
    return path.partition(".")[0].partition("[")[0]


def _failures(reasons: list[str]) -> list[provider_pb2.CheckFailure]:
    return [provider_pb2.CheckFailure(reason=reason) for reason in reasons]


def _properties(struct: Struct) -> Properties:
    properties: Properties = json_format.MessageToDict(struct)
    return properties


def _struct(properties: Properties) -> Struct:
    struct = Struct()
    struct.update(properties)
    return struct


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Errors of AWS as the real provider words them."""
    try:
        yield
    except ClientError as error:
        said = error.response["Error"]
        answer = error.response["ResponseMetadata"]
        raise Refused(
            f"1 error occurred:\n\t* {what}: operation error ECR: {error.operation_name}, https response error "
            f"StatusCode: {answer['HTTPStatusCode']}, RequestID: {answer.get('RequestId', '')}, {said['Code']}: "
            f"{said['Message']}\n\n"
        ) from error
    except (BotoCoreError, Refused) as error:
        raise Refused(f"1 error occurred:\n\t* {what}: {error}\n\n") from error


@contextmanager
def _reported(context: grpc.ServicerContext) -> Iterator[None]:
    """End the call with the exception's message, which the engine shows beside the resource."""
    try:
        yield
    except Exception as error:  # whatever failed, the engine must hear of it in words
        context.abort(grpc.StatusCode.UNKNOWN, str(error) or type(error).__name__)
