"""What Pulumi's language host leaves in a process that lives longer than one operation."""

import contextvars
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from pulumi.errors import RunError
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc
from pulumi.runtime.settings import Settings

from asgard.platform import inline  # noqa: F401  # sets how engines are connected to


class Listener(engine_pb2_grpc.EngineServicer):
    """An engine that hears all and does nothing."""

    def Log(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return Empty()


@pytest.fixture
def listen() -> Iterator[Callable[[int], tuple[grpc.Server, int]]]:
    servers = []

    def make(port: int) -> tuple[grpc.Server, int]:
        server = grpc.server(ThreadPoolExecutor(1))
        servers.append(server)
        engine_pb2_grpc.add_EngineServicer_to_server(Listener(), server)
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        return server, bound

    yield make
    for server in servers:
        server.stop(0).wait()


def told(address: str) -> Any:
    """An engine as a program of its own sees it."""
    return contextvars.copy_context().run(lambda: Settings("project", "stack", engine=address).engine)


def test_an_engine_is_reached_on_a_port_that_a_dead_one_had(
    listen: Callable[[int], tuple[grpc.Server, int]],
) -> None:
    first, port = listen(0)
    left_over = told(f"127.0.0.1:{port}")
    left_over.Log(engine_pb2.LogRequest(message="hello"))
    first.stop(0).wait()
    for _ in range(2):
        with pytest.raises(grpc.RpcError):
            left_over.Log(engine_pb2.LogRequest(message="are you there?"))
    listen(port)
    told(f"127.0.0.1:{port}").Log(engine_pb2.LogRequest(message="hello"))


def test_a_program_that_ends_with_its_engine_leaves_no_traceback_and_any_other_end_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for error in (RunError("Resource monitor has terminated, shutting down"), ValueError("a defect")):
        logging.getLogger("grpc._server").error("Exception calling application", exc_info=error)
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["a defect"]
