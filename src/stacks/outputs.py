"""The outputs of a model's stack: the fields of the answer to a deploy, on every target alike."""

from typing import Any

import pulumi

from .. import naming
from .spec import ModelSpec


def export(spec: ModelSpec, *, url: pulumi.Output[str], image_uri: pulumi.Output[str]) -> None:
    """Declare them. `url`: where the model answers, without a trailing slash."""
    outputs: dict[str, Any] = {
        "deployment_id": naming.deployment_id(spec.name, spec.release.version, spec.release.run_id),
        "model_name": spec.name,
        "model_version": str(spec.release.version),
        "run_id": spec.release.run_id,
        "status": "deployed",
        "inference_url": url,
        "endpoints": {path: pulumi.Output.concat(url, "/", path) for path in ("predict", "health", "metadata")},
        "namespace": spec.namespace,
        "image_uri": image_uri,
    }
    for name, value in outputs.items():
        pulumi.export(name, value)
