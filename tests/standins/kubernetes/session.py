"""What belongs to one connection of an engine: the configured cluster, a place to log to, and whether to stop."""

import threading
from dataclasses import dataclass
from typing import Final

import grpc
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

from .api import Api
from .config import Config
from .types import Manifest, Type

DEBUG: Final = engine_pb2.DEBUG
INFO: Final = engine_pb2.INFO
WARNING: Final = engine_pb2.WARNING


class EngineLog:
    """Lines that the engine shows beside a resource. `address`: the engine's; None logs nowhere."""

    def __init__(self, address: str | None) -> None:
        # A later engine may have the port of one that is gone.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._engine = engine_pb2_grpc.EngineStub(grpc.insecure_channel(address, options)) if address else None
        self._last: dict[str, str] = {}
        self._lock = threading.Lock()

    def status(self, urn: str, severity: "engine_pb2.LogSeverity.ValueType", text: str) -> None:
        """What goes on at the moment; the same again is not said."""
        with self._lock:
            if self._last.get(urn) == text:
                return
            self._last[urn] = text
        self._send(urn, severity, text, ephemeral=True)

    def warn(self, urn: str, text: str) -> None:
        """Stays."""
        self._send(urn, WARNING, text, ephemeral=False)

    def _send(self, urn: str, severity: "engine_pb2.LogSeverity.ValueType", text: str, *, ephemeral: bool) -> None:
        if self._engine is None:
            return
        try:
            self._engine.Log(engine_pb2.LogRequest(severity=severity, message=text, urn=urn, ephemeral=ephemeral))
        except grpc.RpcError:  # The engine is on its way out.
            return


@dataclass(frozen=True)
class Session:
    """`api`: None with `unreachable` saying why."""

    config: Config
    api: Api | None
    unreachable: str
    log: EngineLog
    cancelled: threading.Event


@dataclass(frozen=True)
class Operation:
    """One resource's turn: what it waits for ends at `deadline` (of `time.monotonic`) or when it is cancelled."""

    api: Api
    type: Type
    urn: str
    log: EngineLog
    cancelled: threading.Event
    deadline: float


class AwaitFailed(Exception):
    """The object is there and is not as it should be. `live`: as it was seen last; `reasons`: beside the message."""

    def __init__(self, message: str, live: Manifest, reasons: list[str] | None = None) -> None:
        super().__init__(message)
        self.live = live
        self.reasons = reasons or []
