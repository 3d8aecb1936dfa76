"""The program under Pulumi's mocks: what it declares, recorded."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import pulumi
import pulumi.runtime
from pulumi.runtime import MockCallArgs, MockResourceArgs, get_root_resource, set_all_config, set_mocks
from pulumi.runtime.rpc import _special_secret_sig, _special_sig_key

from asgard import naming
from asgard.stacks.program import program

Outputs = Callable[[MockResourceArgs], Mapping[str, Any]]
"""What a resource's provider adds to its inputs."""


class Recorder(pulumi.runtime.Mocks):
    """`inputs`: by type; all that were declared, by (type, name)."""

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self.inputs: dict[str, dict[str, Any]] = {}

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.inputs[args.typ] = args.inputs
        return args.name, {**args.inputs, **self._outputs(args)}

    def call(self, args: MockCallArgs) -> NoReturn:
        raise AssertionError(args.token)


def run(
    stack: str, config: Mapping[str, Any], environment: Mapping[str, Any], outputs: Outputs
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Run the program of a stack; gives each type's inputs, and the stack's outputs."""
    # Pulumi asks for the thread's loop, and whoever ran one in this thread before has left none.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        recorder = Recorder(outputs)
        set_mocks(recorder, project=naming.PROJECT, stack=stack)
        values = {key: json.dumps(value) for key, value in config.items()}
        values[naming.ENVIRONMENT_CONFIG] = json.dumps(environment)
        set_all_config(values, [naming.ENVIRONMENT_CONFIG])
        exported: dict[str, Any] = {}

        def declare() -> pulumi.Output[None]:
            program()
            root: Any = get_root_resource()
            return pulumi.Output.all(**root.outputs).apply(exported.update)

        pulumi.runtime.test(declare)()  # type: ignore[no-untyped-call]
        return recorder.inputs, exported
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def is_secret(value: Any) -> bool:
    """Whether the engine is told to encrypt it."""
    return isinstance(value, dict) and value.get(_special_sig_key) == _special_secret_sig
