"""What the program declares for a model on this machine."""

from typing import Any

import pytest
from pulumi import RunError
from pulumi.runtime import MockResourceArgs

from asgard import naming
from asgard.stacks.provider.local_server import TYPE
from asgard.stacks.spec import DeploymentConfig, ModelSpec, Release

from . import mocks

SPEC = ModelSpec(
    name="iris",
    target="local",
    namespace="asgard",
    deployment=DeploymentConfig(replicas=2),
    port=20001,
    release=Release(version=3, run_id="1234e56aa", digest="sha256:" + "0" * 64, bundle="mlflow-artifacts:/1/x"),
)


def declared(stack: str = SPEC.name, **edits: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The server's inputs and the stack's outputs. `edits`: what somebody changed in the stack's file."""

    def outputs(_: MockResourceArgs) -> dict[str, Any]:
        return {"url": "http://127.0.0.1:20001", "image_uri": "file:///bundle"}

    config = {naming.MODEL_CONFIG: SPEC.model_dump(by_alias=True) | edits}
    inputs, exported = mocks.run(stack, config, {"API_KEY": "s3cret", "WORKERS": 2}, outputs)
    return inputs[TYPE], exported


def test_the_outputs_are_the_fields_of_the_answer() -> None:
    _, outputs = declared()
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


def test_a_local_model_is_one_server_with_what_the_spec_says() -> None:
    inputs, _ = declared()
    assert {key: inputs[key] for key in ("name", "port", "replicas", "memory_limit", "cpu_limit")} == {
        "name": "iris",
        "port": 20001,
        "replicas": 2,
        "memory_limit": "2Gi",
        "cpu_limit": "1000m",
    }
    assert inputs["release"] == SPEC.release.model_dump()


def test_environment_values_are_secret_text_whatever_yaml_made_of_them() -> None:
    inputs, _ = declared()
    assert mocks.is_secret(inputs["environment"])
    assert inputs["environment"]["value"] == {"API_KEY": "s3cret", "WORKERS": "2"}


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        ({"deployment": {"replicas": 0}}, "deployment.replicas: Input should be greater than or equal to 1"),
        ({"deployment": {"memory_limit": "2GB"}}, "deployment.memory_limit: '2GB' is not a Kubernetes quantity"),
    ],
)
def test_an_edit_gone_wrong_is_told_without_a_traceback(edit: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RunError, match=f"^Pulumi.iris.yaml: asgard-models:model: {complaint}"):
        declared(**edit)


def test_a_stack_does_not_touch_the_model_of_another() -> None:
    with pytest.raises(RunError, match="iris is another model, and this is the stack iris-two"):
        declared("iris-two")
