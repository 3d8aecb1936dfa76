"""The one program of every stack: each model's, and `platform`. The API runs it inline, the CLI by `__main__.py`.

Targets are imported where they are declared: pulumi_kubernetes and pulumi_aws take a second each.
"""

import json
from typing import TypeVar

import pulumi
from pulumi.runtime.config import get_config
from pydantic import BaseModel

from .. import naming
from ..serving import options
from . import outputs
from .local import LocalModel
from .spec import ModelSpec, PlatformSpec, parse

S = TypeVar("S", bound=BaseModel)


def program() -> None:
    """Read the spec from the stack's config and declare the model's infrastructure."""
    config = pulumi.Config(naming.PROJECT)
    values = config.get_secret_object("environment") or pulumi.Output.secret({})
    environment = values.apply(lambda plain: {name: str(value) for name, value in plain.items()})
    # Asked for as plain, a secret would be warned of; only whether there is any, and a port, are of interest.
    plain = json.loads(get_config(naming.ENVIRONMENT_CONFIG) or "{}")
    has_environment = bool(plain)
    if pulumi.get_stack() == naming.PLATFORM_STACK:
        from .shared import Platform

        Platform(_spec(PlatformSpec, config, "platform"), environment if has_environment else None)
        return
    spec = _spec(ModelSpec, config, "model")
    if spec.kubernetes is None:
        local = LocalModel(spec, environment)
        outputs.export(spec, url=local.url, image_uri=local.image_uri)
        return
    from .kubernetes import KubernetesModel

    metrics_port = options.read({name: str(value) for name, value in plain.items()}).metrics_port
    model = KubernetesModel(spec, spec.kubernetes, environment if has_environment else None, metrics_port)
    outputs.export(spec, url=model.url, image_uri=model.image_uri)


def _spec(kind: type[S], config: pulumi.Config, key: str) -> S:
    """Raises RunError, of which Pulumi shows the message alone."""
    stack = pulumi.get_stack()
    try:
        return parse(kind, config.require_object(key), stack)
    except ValueError as error:
        raise pulumi.RunError(f"Pulumi.{stack}.yaml: {config.name}:{key}: {error}") from error
