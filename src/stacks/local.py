"""Target `local`: the model answers from processes on this machine."""

from collections.abc import Mapping

import pulumi

from .provider.local_server import TYPE
from .spec import ModelSpec


class LocalServer(pulumi.CustomResource):
    """A model's server on this machine, as the provider `asgard` runs it."""

    url: pulumi.Output[str]
    image_uri: pulumi.Output[str]

    def __init__(
        self, spec: ModelSpec, environment: pulumi.Input[Mapping[str, str]], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__(
            TYPE,
            spec.name,
            {
                "name": spec.name,
                "port": spec.port,
                "replicas": spec.deployment.replicas,
                "memory_limit": spec.deployment.memory_limit,
                "cpu_limit": spec.deployment.cpu_limit,
                "release": spec.release.model_dump(),
                "environment": environment,
                "url": None,
                "image_uri": None,
                "directory": None,
            },
            opts,
        )


class LocalModel(pulumi.ComponentResource):
    """One model on this machine."""

    def __init__(self, spec: ModelSpec, environment: pulumi.Input[Mapping[str, str]]) -> None:
        super().__init__("asgard:local:Model", spec.name)
        server = LocalServer(spec, environment, pulumi.ResourceOptions(parent=self))
        self.url = server.url
        self.image_uri = server.image_uri
        self.register_outputs({"url": self.url, "image_uri": self.image_uri})
