"""The stand-in's gRPC face.

Protocol: https://github.com/pulumi/pulumi/blob/master/proto/pulumi/provider.proto
"""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from . import config, provider
from .api import Api, ApiFailure, Unreachable
from .session import EngineLog, Session
from .values import from_struct, has_unknown, to_struct

VERSION: Final = "4.34.2"
_THREADS: Final = 64
_ENDS: Final = "grpc-status-details-bin"


class Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """Answers any number of engines; each connection is a provider of its own, with its own cluster.

    `engine`: address of the engine that started the process, None where engines attach and say it themselves.
    `environment`: the provider's environment variables.
    """

    def __init__(self, environment: Mapping[str, str], engine: str | None = None) -> None:
        self._environment = environment
        self._engine = engine
        self._logs: dict[str, EngineLog] = {}
        self._sessions: dict[str, Session] = {}

    def Attach(self, request: Any, context: grpc.ServicerContext) -> Empty:
        self._logs[context.peer()] = EngineLog(request.address)
        return Empty()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=VERSION)

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.CheckResponse:
        found = config.problems(from_struct(request.news))
        return provider_pb2.CheckResponse(inputs=request.news, failures=_failures(found))

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:
        olds, news = from_struct(request.olds), from_struct(request.news)
        unknown = [name for name in ("kubeconfig", "context", "cluster") if has_unknown(news.get(name))]
        try:
            changed, replaces = (unknown, unknown) if unknown else config.difference(olds, news)
        except config.BadConfig as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        changes = provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(changes=changes, diffs=changed, replaces=replaces)

    def Configure(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.ConfigureResponse:
        try:
            configured = config.configured(request.variables, self._environment)
        except config.BadConfig as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        api, unreachable = None, configured.unreachable
        if configured.cluster is not None:
            try:
                api = Api(configured.cluster)
                api.check()
            except (ApiFailure, Unreachable) as error:
                api, unreachable = None, f"unable to load schema information from the API server: {error}"
        log = self._logs.pop(context.peer(), None) or EngineLog(self._engine)
        self._sessions[context.peer()] = Session(configured, api, unreachable, log, threading.Event())
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
        )

    def Check(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.CheckResponse:
        autonaming = request.autonaming if request.HasField("autonaming") else None
        with self._session(context) as session:
            inputs, found = provider.check(
                session, request.urn, from_struct(request.olds), from_struct(request.news), autonaming
            )
        return provider_pb2.CheckResponse(inputs=to_struct(inputs), failures=_failures(found))

    def Diff(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:
        _refuse_ignore_changes(request, context)
        with self._session(context) as session:
            found = provider.difference(session, request.urn, from_struct(request.olds), from_struct(request.news))
        changes = provider_pb2.DiffResponse.DIFF_SOME if found.details else provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(
            changes=changes,
            replaces=found.replaces,
            deleteBeforeReplace=found.delete_before_replace,
            detailedDiff=found.details,
            hasDetailedDiff=True,
        )

    def Create(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.CreateResponse:
        with self._session(context) as session:
            made = provider.create(
                session, request.urn, from_struct(request.properties), request.timeout, preview=request.preview
            )
        if made is None:
            return provider_pb2.CreateResponse(properties=request.properties)
        return provider_pb2.CreateResponse(id=made[0], properties=to_struct(made[1]))

    def Update(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.UpdateResponse:
        _refuse_ignore_changes(request, context)
        olds, news = from_struct(request.olds), from_struct(request.news)
        with self._session(context) as session:
            state = provider.update(session, request.urn, olds, news, request.timeout, preview=request.preview)
        return provider_pb2.UpdateResponse(properties=request.news if state is None else to_struct(state))

    def Read(self, request: Any, context: grpc.ServicerContext) -> provider_pb2.ReadResponse:
        with self._session(context) as session:
            found = provider.read(
                session, request.urn, request.id, from_struct(request.inputs), from_struct(request.properties)
            )
        if found is None:
            return provider_pb2.ReadResponse(id="")
        inputs, state = found
        return provider_pb2.ReadResponse(id=request.id, inputs=to_struct(inputs), properties=to_struct(state))

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Empty:
        with self._session(context) as session:
            provider.delete(session, request.urn, request.id, from_struct(request.properties), request.timeout)
        return Empty()

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Empty:
        """Ends what this engine waits for. It is also called when all is done."""
        session = self._sessions.get(context.peer())
        if session is not None:
            session.cancelled.set()
        return Empty()

    @contextmanager
    def _session(self, context: grpc.ServicerContext) -> Iterator[Session]:
        """The connection's; what goes wrong is told as the engine wants it told."""
        session = self._sessions.get(context.peer())
        if session is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the provider is not configured")
        try:
            yield session
        except provider.Partial as error:
            detail = provider_pb2.ErrorResourceInitFailed(
                id=error.object_id,
                properties=to_struct(error.state),
                reasons=error.reasons,
                inputs=None if error.inputs is None else to_struct(error.inputs),
            )
            packed = AnyMessage()
            packed.Pack(detail)
            code: int = grpc.StatusCode.UNKNOWN.value[0]
            status = status_pb2.Status(code=code, message=str(error), details=[packed])
            context.set_trailing_metadata(((_ENDS, status.SerializeToString()),))
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except provider.Failed as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))


def serve(environment: Mapping[str, str], engine: str | None = None) -> tuple[grpc.Server, int]:
    """A started server on a free port of the loopback."""
    server = grpc.server(
        ThreadPoolExecutor(max_workers=_THREADS),
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Servicer(environment, engine), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def _failures(found: Mapping[str, str]) -> list[provider_pb2.CheckFailure]:
    return [provider_pb2.CheckFailure(property=path, reason=reason) for path, reason in found.items()]


def _refuse_ignore_changes(request: Any, context: grpc.ServicerContext) -> None:
    if request.ignoreChanges:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "the stand-in does not do ignoreChanges")
