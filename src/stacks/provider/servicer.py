"""The provider's gRPC face.

Protocol: https://github.com/pulumi/pulumi/blob/master/proto/pulumi/provider.proto
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.empty_pb2 import Empty
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from .resource import Properties, Resource, changed_paths

VERSION = "0.1.0"

_DETAILED = {
    "add": provider_pb2.PropertyDiff.ADD,
    "delete": provider_pb2.PropertyDiff.DELETE,
    "update": provider_pb2.PropertyDiff.UPDATE,
}


def _integers(value: Any) -> Any:
    """A protobuf Struct knows doubles only; whole ones are given back as int."""
    if isinstance(value, dict):
        return {key: _integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_integers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _properties(struct: Struct) -> Properties:
    properties: Properties = _integers(json_format.MessageToDict(struct))
    properties.pop("__defaults", None)
    return properties


def _struct(properties: Properties) -> Struct:
    struct = Struct()
    struct.update(properties)
    return struct


class ProviderServicer(provider_pb2_grpc.ResourceProviderServicer):
    """Answers the engine for the given resources. Calls of several stacks may come at the same time.

    `on_cancel`: called when an engine was told to stop. A provider that serves several engines cannot tell which.
    """

    def __init__(self, resources: Mapping[str, Resource], on_cancel: Callable[[], None]) -> None:
        self._resources = resources
        self._on_cancel = on_cancel

    def _resource(self, urn: str) -> Resource:
        token = urn.split("::")[2].split("$")[-1]
        if token not in self._resources:
            raise ValueError(f"The provider asgard has no resource type {token}.")
        return self._resources[token]

    # The engine fixes the names and signatures of what follows.
    def Handshake(self, request: Any, context: grpc.ServicerContext) -> None:  # noqa: N802, ARG002
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "Configure says all there is to say")

    def Attach(self, request: Any, context: grpc.ServicerContext) -> Empty:  # noqa: N802, ARG002
        return Empty()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:  # noqa: N802, ARG002
        return plugin_pb2.PluginInfo(version=VERSION)

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.CheckResponse:  # noqa: N802, ARG002
        # Only these two belong to a provider; anything else would be copied from the config into the state.
        kept = {k: v for k, v in _properties(request.news).items() if k in ("version", "pluginDownloadURL")}
        return provider_pb2.CheckResponse(inputs=_struct(kept))

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:  # noqa: N802, ARG002
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.ConfigureResponse:  # noqa: N802, ARG002
        return provider_pb2.ConfigureResponse(supportsPreview=True, acceptSecrets=False, acceptResources=False)

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Empty:  # noqa: N802, ARG002
        self._on_cancel()
        return Empty()

    def Check(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.CheckResponse:  # noqa: N802, ARG002
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:  # noqa: N802, ARG002
        changes = changed_paths(_properties(request.old_inputs), _properties(request.news))
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if changes else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=sorted({path.split(".")[0] for path in changes}),
            detailedDiff={
                path: provider_pb2.PropertyDiff(kind=_DETAILED[kind], inputDiff=True) for path, kind in changes.items()
            },
            hasDetailedDiff=True,
        )

    def Create(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.CreateResponse:  # noqa: N802
        with _reported(context):
            resource, inputs = self._resource(request.urn), _properties(request.properties)
            if request.preview:
                return provider_pb2.CreateResponse(properties=_struct(resource.preview(inputs, {})))
            identifier, outputs = resource.create(inputs)
            return provider_pb2.CreateResponse(id=identifier, properties=_struct(outputs))
        raise AssertionError  # _reported aborts the call

    def Read(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.ReadResponse:  # noqa: N802
        with _reported(context):
            found = self._resource(request.urn).read(
                request.id, _properties(request.inputs), _properties(request.properties)
            )
            if found is None:
                return provider_pb2.ReadResponse()
            inputs, outputs = found
            return provider_pb2.ReadResponse(id=request.id, inputs=_struct(inputs), properties=_struct(outputs))
        raise AssertionError

    def Update(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.UpdateResponse:  # noqa: N802
        with _reported(context):
            resource, inputs, outputs = (
                self._resource(request.urn),
                _properties(request.news),
                _properties(request.olds),
            )
            if request.preview:
                return provider_pb2.UpdateResponse(properties=_struct(resource.preview(inputs, outputs)))
            return provider_pb2.UpdateResponse(properties=_struct(resource.update(request.id, inputs, outputs)))
        raise AssertionError

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Empty:  # noqa: N802
        with _reported(context):
            self._resource(request.urn).delete(request.id, _properties(request.properties))
            return Empty()
        raise AssertionError


@contextmanager
def _reported(context: grpc.ServicerContext) -> Iterator[None]:
    """End the call with the exception's message, which the engine shows beside the resource."""
    try:
        yield
    except Exception as error:  # whatever failed, the engine must hear of it in words
        context.abort(grpc.StatusCode.UNKNOWN, str(error) or type(error).__name__)


def serve(resources: Mapping[str, Resource], on_cancel: Callable[[], None] = lambda: None) -> tuple[grpc.Server, int]:
    """Listen on a free loopback port; gives the running server and the port."""
    server = grpc.server(ThreadPoolExecutor(thread_name_prefix="pulumi-provider"))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(ProviderServicer(resources, on_cancel), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port
