"""The one program of every model's stack. The API runs it inline, the `pulumi` CLI through `__main__.py`."""

import pulumi

from .. import naming
from . import outputs
from .local import LocalModel
from .spec import ModelSpec


def program() -> None:
    """Read the spec from the stack's config and declare the model's infrastructure."""
    config = pulumi.Config(naming.PROJECT)
    spec = ModelSpec.model_validate(config.require_object("model"))
    values = config.get_secret_object("environment") or pulumi.Output.secret({})
    environment = values.apply(lambda plain: {name: str(value) for name, value in plain.items()})
    model = LocalModel(spec, environment)
    outputs.export(spec, url=model.url, image_uri=model.image_uri)
