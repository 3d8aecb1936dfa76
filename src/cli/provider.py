"""`pulumi-resource-asgard`: the provider as the plugin that the plain `pulumi` command starts.

A plugin prints its port as the first line of the standard output.
Protocol: https://github.com/pulumi/pulumi/blob/master/sdk/go/common/resource/plugin/plugin.go
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final, Protocol

import grpc
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

from ..errors import AsgardError
from ..platform import loopback
from ..serving import control
from ..serving.desired import ApplyFailed
from ..settings import Settings
from ..stacks.provider import image, local_server, servicer
from ..stacks.provider.image import ImageRuntime
from ..stacks.provider.local_server import LocalRuntime, Materialized
from .configuration import load

_PARENT_CHECK_SECONDS: Final = 1.0
_LOG_SECONDS: Final = 5.0


class Report(Protocol):
    """Tells the user of the engine a line of progress, or why something failed."""

    def __call__(self, text: str, *, failed: bool) -> None: ...


def main() -> None:
    """Serve until the engine says to end, or is gone."""
    engine = os.getppid()
    os.environ.update(loopback.past_proxies(os.environ))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        settings, report = load(), reporter(sys.argv[1:])
    except AsgardError as error:
        sys.exit(error.message)
    resources = {
        local_server.TYPE: local_server.resource(_local_runtime(settings, report)),
        image.TYPE: image.resource(_image_runtime(settings, report)),
    }
    server, port = servicer.serve(resources, control.cancel)
    print(port, flush=True)  # noqa: T201 - the protocol
    # An engine that was killed says nothing, and what is done after its end nobody records.
    while os.getppid() == engine:
        server.wait_for_termination(_PARENT_CHECK_SECONDS)
    os._exit(1)


def reporter(arguments: Sequence[str]) -> Report:
    """Where to tell what goes on: the engine whose address is the last of the plugin's arguments, else standard error.

    Of what a plugin writes to the standard error the engine shows nothing.
    """
    address = next((argument for argument in reversed(arguments) if not argument.startswith("-")), None)
    stub = engine_pb2_grpc.EngineStub(grpc.insecure_channel(address)) if address else None

    def report(text: str, *, failed: bool) -> None:
        severity = engine_pb2.ERROR if failed else engine_pb2.INFO
        try:
            if stub is not None:
                # Ephemeral: shown while it lasts, not repeated at the end.
                stub.Log(
                    engine_pb2.LogRequest(severity=severity, message=text, ephemeral=not failed), timeout=_LOG_SECONDS
                )
                return
        except grpc.RpcError:
            pass
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    return report


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    # Control-C reaches the engine too, which then cancels what is under way and waits for what became of it.
    if number == signal.SIGTERM or not control.applying():
        os._exit(0)


def _image_runtime(settings: Settings, report: Report) -> ImageRuntime:
    def images() -> ImageRuntime:
        from ..platform import mlflow_server, model_images  # not needed for what runs on this machine

        return model_images.runtime(
            settings,
            lambda: mlflow_server.tracking(settings),
            lambda model, line: report(f"{model}: {line}", failed=False),
            lambda *_: None,  # the engine shows what the call ends with
        )

    return ImageRuntime(
        push=lambda wanted: images().push(wanted),
        served=lambda repository, digest: images().served(repository, digest),
        delete=lambda repository, model: images().delete(repository, model),
    )


def _local_runtime(settings: Settings, report: Report) -> LocalRuntime:
    def on_log(model: str, line: str) -> None:
        report(f"{model}: {line}", failed=False)

    def on_failure(model: str, error: ApplyFailed) -> None:
        report("\n".join([f"{model}: {error.reason}. Last lines of its log:", *error.log_tail]), failed=True)

    def materialize(model: str, release: dict[str, Any]) -> Materialized:
        from ..platform import mlflow_server, releases  # not needed to preview, read or destroy

        # The embedded MLflow's artifacts are read from its folder: it need not run.
        tracking = mlflow_server.tracking(settings)
        return releases.materialize(settings, tracking, model, release, lambda line: on_log(model, line))

    return LocalRuntime(
        data_dir=settings.data_dir,
        health_timeout_seconds=settings.health_timeout_seconds,
        materialize=materialize,
        on_log=on_log,
        on_failure=on_failure,
    )
