"""A model's image, as the provider `asgard` puts it into a registry."""

import pulumi

from .. import naming
from .provider.image import TYPE
from .spec import ModelSpec


class Image(pulumi.CustomResource):
    """The image of a release in `repository`. `reference`: by digest, to run; `image_uri`: by tag, to read."""

    reference: pulumi.Output[str]
    image_uri: pulumi.Output[str]

    def __init__(self, spec: ModelSpec, repository: pulumi.Input[str], opts: pulumi.ResourceOptions) -> None:
        release = spec.release
        super().__init__(
            TYPE,
            spec.name,
            {
                "name": spec.name,
                "repository": repository,
                "tag": naming.deployment_id(spec.name, release.version, release.run_id),
                "digest": release.digest,
                "bundle": release.bundle,
                "reference": None,
                "image_uri": None,
            },
            opts,
        )
