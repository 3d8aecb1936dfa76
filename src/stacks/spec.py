"""The spec: everything that a model's stack needs, as it stands in the stack's file."""

from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .. import quantities

Target = Literal["local", "kubernetes"]
"""Where a model runs: in processes on this machine, or in pods on a cluster."""

SCHEMA: Final = 1
"""Number of the format below. A change that an old file does not fit raises it and reads the old one too."""


def _quantity(text: str) -> str:
    quantities.parse(text)
    return text


Quantity = Annotated[str, AfterValidator(_quantity)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Release(_Frozen):
    """What a new version changes, and nothing else: putting an old block back is a rollback."""

    version: int = Field(ge=1)
    run_id: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    """Of what serves. Target `local`: the bundle's content; target `kubernetes`: the image's manifest."""
    bundle: str
    """The bundle as an MLflow artifact: an `mlflow-artifacts:/…` or `runs:/…` URI of a folder."""


class DeploymentConfig(_Frozen):
    """How much a model may use. The fields and defaults are those of a POST."""

    # `cpu_limit: 1` in a file edited by hand is a number to YAML.
    model_config = ConfigDict(coerce_numbers_to_str=True)

    replicas: int = Field(default=1, ge=1, le=100)
    memory_limit: Quantity = "2Gi"
    cpu_limit: Quantity = "1000m"


class KubernetesConfig(_Frozen):
    """Where the images of a model on a cluster are."""

    registry: str
    """`ecr`, or `host[:port][/prefix]` of any OCI registry; the model's name follows."""
    region: str | None = None
    """Of ECR."""
    rollout_timeout_seconds: int = Field(default=300, ge=1)
    """Time for a new version's pods to become ready, image pull included, and for the LoadBalancer's address."""


class PlatformSpec(_Frozen):
    """What the models of one environment share on a cluster."""

    schema_number: Literal[1] = Field(default=SCHEMA, alias="schema")
    namespace: str
    creates_namespace: bool = True
    """Whether the namespace is the stack's own; else somebody has made it before, together with the rights in it."""
    cluster: str | None = None
    """The uid of the namespace `kube-system`, where Asgard may see it: models are on no other cluster."""
    registry: str
    """As in `KubernetesConfig`."""
    region: str | None = None
    """Of ECR."""
    endpoint: str | None = None
    """URL of ECR's API where it is not the region's public one."""
    image: str
    """One with a Python, in which pull credentials are renewed."""


class ModelSpec(_Frozen):
    """One model's infrastructure. `port` belongs to the target `local`, `kubernetes` to the target of that name."""

    schema_number: Literal[1] = Field(default=SCHEMA, alias="schema")
    name: str
    target: Target
    namespace: str
    deployment: DeploymentConfig
    port: int | None = Field(default=None, ge=1, le=65535)
    """Of the local target's server on 127.0.0.1: allocated once, so the URL lasts."""
    kubernetes: KubernetesConfig | None = None
    release: Release

    @model_validator(mode="after")
    def _has_what_its_target_needs(self) -> Self:
        needed = "port" if self.target == "local" else "kubernetes"
        if getattr(self, needed) is None:
            raise ValueError(f"the target {self.target} needs {needed}")
        return self


S = TypeVar("S", bound=BaseModel)


def parse(kind: type[S], values: Any, stack: str) -> S:
    """The spec that a stack's file has. Raises ValueError: what is wrong with it, in a line."""
    try:
        spec = kind.model_validate(values)
    except ValidationError as error:
        detail = error.errors()[0]
        where, what = ".".join(map(str, detail["loc"])), detail["msg"].removeprefix("Value error, ")
        raise ValueError(f"{where}: {what}") from error
    if (name := getattr(spec, "name", stack)) != stack:
        raise ValueError(
            f"name: {name} is another model, and this is the stack {stack}. Give a copied file a name and a port "
            f"of its own; `pulumi stack rename {name}` takes the renaming of a stack back."
        )
    return spec
