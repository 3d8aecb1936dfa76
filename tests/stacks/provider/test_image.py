"""The resource of a model's image: what it asks of the registry, and when."""

import pytest
from pulumi.runtime.rpc import UNKNOWN

from asgard.stacks.provider import image
from asgard.stacks.provider.image import ImageRuntime, WantedImage
from asgard.stacks.provider.resource import Properties, Resource

INPUTS = {
    "name": "iris",
    "repository": "registry.test/acme/iris",
    "tag": "iris-v1-abc123",
    "digest": "sha256:1",
    "bundle": "mlflow-artifacts:/1/b",
}


class Registry:
    """What was asked of it, in memory."""

    def __init__(self) -> None:
        self.images: dict[tuple[str, str], WantedImage] = {}
        self.serving = ""

    def push(self, wanted: WantedImage) -> None:
        self.images[wanted.repository, wanted.digest] = wanted
        self.serving = wanted.digest

    def served(self, repository: str, digest: str) -> str | None:
        return self.serving if (repository, digest) in self.images else None

    def delete(self, repository: str, model: str) -> None:
        self.images = {
            key: wanted for key, wanted in self.images.items() if (key[0], wanted.model) != (repository, model)
        }

    def resource(self) -> Resource:
        return image.resource(ImageRuntime(self.push, self.served, self.delete))


@pytest.fixture
def registry() -> Registry:
    return Registry()


def changed(**inputs: str) -> Properties:
    return {**INPUTS, **inputs}


def test_a_preview_knows_the_references_and_pushes_nothing(registry: Registry) -> None:
    outputs = registry.resource().preview(INPUTS, {})
    assert outputs["reference"] == "registry.test/acme/iris@sha256:1"
    assert outputs["image_uri"] == "registry.test/acme/iris:iris-v1-abc123"
    assert registry.images == {}


def test_a_repository_that_is_still_to_be_made_leaves_the_references_unknown(registry: Registry) -> None:
    outputs = registry.resource().preview(changed(repository=UNKNOWN), {})
    assert outputs["reference"] == outputs["image_uri"] == UNKNOWN


def test_a_new_release_is_pushed_beside_the_old_ones(registry: Registry) -> None:
    resource = registry.resource()
    identifier, outputs = resource.create(INPUTS)
    assert identifier == "iris"
    new = changed(tag="iris-v2-def456", digest="sha256:2")
    assert resource.update(identifier, new, outputs)["reference"] == "registry.test/acme/iris@sha256:2"
    assert {digest for _, digest in registry.images} == {"sha256:1", "sha256:2"}


def test_what_is_gone_from_the_registry_is_read_as_gone(registry: Registry) -> None:
    resource = registry.resource()
    identifier, outputs = resource.create(INPUTS)
    assert resource.read(identifier, INPUTS, outputs) == (INPUTS, outputs)
    registry.images.clear()
    assert resource.read(identifier, INPUTS, outputs) is None


def test_an_image_that_is_there_and_not_marked_as_serving_is_read_as_another(registry: Registry) -> None:
    resource = registry.resource()
    identifier, outputs = resource.create(INPUTS)
    registry.serving = "sha256:2"
    found = resource.read(identifier, INPUTS, outputs)
    assert found is not None
    assert found[0] == changed(digest="sha256:2")


def test_deleting_takes_all_images_of_the_model(registry: Registry) -> None:
    resource = registry.resource()
    identifier, outputs = resource.create(INPUTS)
    outputs = resource.update(identifier, changed(tag="iris-v2-def456", digest="sha256:2"), outputs)
    resource.delete(identifier, outputs)
    assert registry.images == {}
