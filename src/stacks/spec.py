"""The spec: everything that a model's stack needs, as it stands in the stack's file."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Final = 1
"""Number of the format below. A change that an old file does not fit raises it and reads the old one too."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Release(_Frozen):
    """What a new version changes, and nothing else: putting an old block back is a rollback."""

    version: int = Field(ge=1)
    run_id: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    """Of the bundle's content."""
    bundle: str
    """The bundle as an MLflow artifact: an `mlflow-artifacts:/…` or `runs:/…` URI of a folder."""


class DeploymentConfig(_Frozen):
    """How much a model may use. The fields and defaults are those of a POST."""

    # `cpu_limit: 1` in a file edited by hand is a number to YAML.
    model_config = ConfigDict(coerce_numbers_to_str=True)

    replicas: int = Field(default=1, ge=1, le=100)
    memory_limit: str = "2Gi"
    cpu_limit: str = "1000m"


class ModelSpec(_Frozen):
    """One model's infrastructure."""

    schema_number: Literal[1] = Field(default=SCHEMA, alias="schema")
    name: str
    target: Literal["local"]
    namespace: str
    deployment: DeploymentConfig
    port: int = Field(ge=1, le=65535)
    """Of the local target's server on 127.0.0.1: allocated once, so the URL lasts."""
    release: Release
