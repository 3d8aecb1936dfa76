"""Resource `asgard:index:Image`: a release's image in a registry. Its digest is known before anything is pushed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pulumi.runtime.rpc import UNKNOWN

from .resource import Properties, Resource

TYPE: Final = "asgard:index:Image"


@dataclass(frozen=True)
class WantedImage:
    """What is to be in the registry. `repository`: with host, without tag. `bundle`: what it is made of, in MLflow."""

    model: str
    repository: str
    tag: str
    digest: str
    bundle: str


@dataclass(frozen=True)
class ImageRuntime:
    """What the resource works with. Functions raise to report a failure."""

    push: Callable[[WantedImage], None]
    """Put it there unless it is, rebuilt from its bundle where no local copy is left."""
    served: Callable[[str, str], str | None]
    """Repository, digest -> the digest that is marked as the one that serves, "" for none; None: it is not there."""
    delete: Callable[[str, str], None]
    """Repository, model -> remove all of the model's images; what is gone is fine."""


def resource(runtime: ImageRuntime) -> Resource:
    """The resource type, working in `runtime`. A new release pushes its image beside the old ones, for rollback."""

    def apply(inputs: Properties) -> Properties:
        runtime.push(
            WantedImage(
                model=inputs["name"],
                repository=inputs["repository"],
                tag=inputs["tag"],
                digest=inputs["digest"],
                bundle=inputs["bundle"],
            )
        )
        return _outputs(inputs)

    def read(_: str, inputs: Properties, outputs: Properties) -> tuple[Properties, Properties] | None:
        known = {key: value for key, value in (inputs or outputs).items() if key not in ("reference", "image_uri")}
        served = runtime.served(known["repository"], known["digest"])
        if served is None:
            return None
        known["digest"] = served
        return known, _outputs(known)

    return Resource(
        token=TYPE,
        create=lambda inputs: (inputs["name"], apply(inputs)),
        read=read,
        update=lambda _, inputs, __: apply(inputs),
        delete=lambda identifier, outputs: runtime.delete(outputs["repository"], identifier),
        preview=lambda inputs, _: _outputs(inputs),
    )


def _outputs(inputs: Properties) -> Properties:
    repository = inputs["repository"]
    if repository == UNKNOWN:  # in a preview, while its repository is still to be made
        return inputs | {"reference": UNKNOWN, "image_uri": UNKNOWN}
    return inputs | {
        "reference": f"{repository}@{inputs['digest']}",
        "image_uri": f"{repository}:{inputs['tag']}",
    }
