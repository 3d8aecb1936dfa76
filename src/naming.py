"""Every name that Asgard gives: stacks, tags, deployment ids. Nothing else makes one up."""

import re
from typing import Final

PROJECT: Final = "asgard-models"
"""The Pulumi project of every model's stack."""

PLATFORM_STACK: Final = "platform"
"""Reserved: the stack of what models share on a cluster; never a model's name."""

PULL_SECRET: Final = "asgard-registry"  # noqa: S105 - a name
"""Secret of the platform stack with which pods pull images."""

SERVING_TAG: Final = "serving"
"""Tag in a model's repository that moves along with what serves, so that its image never expires."""

RENEWAL: Final = "asgard-registry-renewal"
"""What keeps that Secret fresh: its job, its account and its rights."""

NAME_LABEL: Final = "app.kubernetes.io/name"
"""On every object of a model: the model's name."""

ALIAS: Final = "asgard"
"""MLflow alias of the version that serves."""

PLATFORM_CONFIG: Final = f"{PROJECT}:platform"
MODEL_CONFIG: Final = f"{PROJECT}:model"
ENVIRONMENT_CONFIG: Final = f"{PROJECT}:environment"

TAG_DEPLOYMENT: Final = "asgard.deployment"
"""On every run and logged model that a deploy's script makes: the deploy's token."""
TAG_DEPLOYMENT_ID: Final = "asgard.deployment_id"
TAG_INFERENCE_URL: Final = "asgard.inference_url"
TAG_STATUS: Final = "asgard.status"
TAG_BUNDLE: Final = "asgard.bundle"
TAG_DIGEST: Final = "asgard.digest"
"""On a version: its release's bundle and digest, so that it can serve again."""

MODEL_NAME_MAX: Final = 53
"""Characters. A DNS label has 63; ten are left for what Kubernetes appends."""

DEPLOYMENT_ID_ANNOTATION: Final = "asgard.dev/deployment-id"
RUN_ID_ANNOTATION: Final = "asgard.dev/run-id"
"""On a model's pods."""

DEPLOYMENT_VARIABLE: Final = "ASGARD_DEPLOYMENT"
"""Environment variable that marks every process of a deploy with its token."""

_MODEL_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def is_model_name(name: str) -> bool:
    """Whether a model may be deployed under this name: a DNS label (RFC 1123) of at most 53 characters."""
    return len(name) <= MODEL_NAME_MAX and name != PLATFORM_STACK and _MODEL_NAME.fullmatch(name) is not None


def repository(model: str, registry: str | None = None) -> str:
    """The model's image repository: in ECR `asgard-model/<model>`, elsewhere below the registry's host and prefix.

    `registry`: `host[:port][/prefix]`; without a prefix ECR's is used.
    """
    if registry is not None and "/" in registry:
        return f"{registry}/{model}"
    name = f"asgard-model/{model}"
    return name if registry is None else f"{registry}/{name}"


def deployment_id(model: str, version: int, run_id: str) -> str:
    """`{model}-v{version}-{first 6 of run_id}`; also the image tag. May pass 63 characters: never a label."""
    return f"{model}-v{version}-{run_id[:6]}"
