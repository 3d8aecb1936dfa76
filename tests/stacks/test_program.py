import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pulumi
import pulumi.runtime
import pytest
from pulumi.runtime import MockCallArgs, MockResourceArgs, get_root_resource, set_all_config, set_mocks
from pulumi.runtime.rpc import _special_secret_sig, _special_sig_key

from asgard import naming
from asgard.stacks.program import program
from asgard.stacks.provider.local_server import TYPE
from asgard.stacks.spec import DeploymentConfig, ModelSpec, Release

SPEC = ModelSpec(
    name="iris",
    target="local",
    namespace="asgard",
    deployment=DeploymentConfig(replicas=2),
    port=20001,
    release=Release(version=3, run_id="1234e56aa", digest="sha256:" + "0" * 64, bundle="mlflow-artifacts:/1/x"),
)


def with_pulumi(test: Callable[["Recorder"], Any]) -> Callable[["Recorder"], None]:
    """Pulumi's own wrapper for tests, which waits for the outputs that the test gives back; it has no types."""
    wrapped: Callable[[Recorder], None] = pulumi.runtime.test(test)  # type: ignore[no-untyped-call]
    return wrapped


class Recorder(pulumi.runtime.Mocks):
    def __init__(self) -> None:
        self.inputs: dict[str, dict[str, Any]] = {}

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.inputs[args.typ] = args.inputs
        return args.name, {**args.inputs, "url": "http://127.0.0.1:20001", "image_uri": "file:///bundle"}

    def call(self, args: MockCallArgs) -> NoReturn:
        raise AssertionError(args.token)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    # Pulumi asks for the thread's loop, and whoever ran one in this thread before has left none.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    set_mocks(recorder, project=naming.PROJECT, stack=SPEC.name)
    config = {naming.MODEL_CONFIG: SPEC.model_dump_json(by_alias=True)}
    config[naming.ENVIRONMENT_CONFIG] = json.dumps({"API_KEY": "s3cret", "WORKERS": 2})
    set_all_config(config, [naming.ENVIRONMENT_CONFIG])
    yield recorder
    asyncio.set_event_loop(None)
    loop.close()


def outputs_of(stack: Any) -> pulumi.Output[dict[str, Any]]:
    return pulumi.Output.all(**stack.outputs)


@with_pulumi
def test_the_outputs_are_the_fields_of_the_answer(recorder: Recorder) -> Any:
    program()

    def check(outputs: dict[str, Any]) -> None:
        assert outputs == {
            "deployment_id": "iris-v3-1234e5",
            "model_name": "iris",
            "model_version": "3",
            "run_id": "1234e56aa",
            "status": "deployed",
            "inference_url": "http://127.0.0.1:20001",
            "endpoints": {
                "predict": "http://127.0.0.1:20001/predict",
                "health": "http://127.0.0.1:20001/health",
                "metadata": "http://127.0.0.1:20001/metadata",
            },
            "namespace": "asgard",
            "image_uri": "file:///bundle",
        }

    return outputs_of(get_root_resource()).apply(check)


@with_pulumi
def test_a_local_model_is_one_server_with_what_the_spec_says(recorder: Recorder) -> Any:
    program()

    def check(_: Any) -> None:
        inputs = recorder.inputs[TYPE]
        assert {key: inputs[key] for key in ("name", "port", "replicas", "memory_limit", "cpu_limit")} == {
            "name": "iris",
            "port": 20001,
            "replicas": 2,
            "memory_limit": "2Gi",
            "cpu_limit": "1000m",
        }
        assert inputs["release"] == SPEC.release.model_dump()

    return outputs_of(get_root_resource()).apply(check)


@with_pulumi
def test_environment_values_are_secret_text_whatever_yaml_made_of_them(recorder: Recorder) -> Any:
    program()

    def check(_: Any) -> None:
        environment = recorder.inputs[TYPE]["environment"]
        assert environment[_special_sig_key] == _special_secret_sig
        assert environment["value"] == {"API_KEY": "s3cret", "WORKERS": "2"}

    return outputs_of(get_root_resource()).apply(check)
