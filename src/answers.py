"""The JSON that comes out of the API, and that its client reads: field for field the contract, with its examples."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

UtcTime = Annotated[datetime, AfterValidator(lambda time: time.astimezone(UTC))]
"""ISO 8601 with `Z`."""


class _Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Endpoints(_Answer):
    """Where the model answers."""

    predict: str = Field(examples=["http://127.0.0.1:20123/predict"])
    health: str = Field(examples=["http://127.0.0.1:20123/health"])
    metadata: str = Field(examples=["http://127.0.0.1:20123/metadata"])


class DeployAnswer(_Answer):
    """What a deploy made."""

    deployment_id: str = Field(examples=["iris-classifier-v1-3f9c1a"])
    model_name: str = Field(examples=["iris-classifier"])
    model_version: Annotated[str, BeforeValidator(str)] = Field(examples=["1"])
    run_id: str = Field(examples=["3f9c1a5be6d04c0a8f3c6b1f7d2e9a10"])
    status: Literal["deployed"] = "deployed"
    inference_url: str = Field(examples=["http://127.0.0.1:20123"])
    endpoints: Endpoints
    namespace: str = Field(examples=["asgard"])
    image_uri: str = Field(examples=["file:///home/me/.local/share/asgard/bundles/iris-classifier/5b1e…"])
    deployment_time_seconds: float = Field(examples=[12.4])
    created_at: UtcTime = Field(examples=["2026-01-15T10:30:00Z"])


class ModelAnswer(_Answer):
    """A registered model."""

    name: str = Field(examples=["iris-classifier"])
    description: str
    creation_timestamp: UtcTime = Field(examples=["2026-01-15T10:30:00Z"])
    last_updated_timestamp: UtcTime = Field(examples=["2026-01-15T10:30:00Z"])
    latest_version: int = Field(examples=[1])
    tags: dict[str, str] = Field(examples=[{"team": "data-science"}])


class VersionAnswer(_Answer):
    """A version of a registered model."""

    version: int = Field(examples=[1])
    run_id: str = Field(examples=["3f9c1a5be6d04c0a8f3c6b1f7d2e9a10"])
    status: str = Field(examples=["READY"])
    creation_timestamp: UtcTime = Field(examples=["2026-01-15T10:30:00Z"])
    current_stage: str = Field(examples=["Production"])
    description: str


class ModelWithVersions(ModelAnswer):
    """A registered model and its versions, newest first."""

    versions: list[VersionAnswer]


class StatusAnswer(_Answer):
    """How Asgard and what it stands on are."""

    mlflow_status: str = Field(examples=["healthy"])
    mlflow_uri: str = Field(examples=["http://127.0.0.1:5000"])
    feast_status: str = Field(examples=["healthy"])
    feast_repo_path: str = Field(examples=["/home/me/.local/share/asgard/feast"])
    deployment_service_status: str = Field(examples=["healthy"])
    deployment_service_ready: bool
    timestamp: UtcTime = Field(examples=["2026-01-15T10:30:00Z"])


class FieldError(BaseModel):
    """What is wrong with one field of the request, and how to put it right."""

    field: str = Field(examples=["deployment_config.replicas"])
    message: str = Field(examples=["must be an integer from 1 to 100"])


class Problem(BaseModel):
    """An error, as RFC 9457 problem details. Members without a value are left out."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    type: str = Field(description="`urn:asgard:error:` and the code.")
    title: str
    status: int
    detail: str = Field(description="What failed and what to do.")
    code: str = Field(description="Stable: what programs compare.")
    errors: list[FieldError] | None = Field(default=None, description="Each field that is wrong.")
    stage: str | None = Field(default=None, description="Step of the deploy that failed.")
    log_tail: list[str] | None = Field(default=None, description="Last lines of the part that failed.")
    run_id: str | None = Field(default=None, description="The run that a failed script left in MLflow.")
    reason: str | None = Field(default=None, description="One word for what happened, such as `OOMKilled`.")
    undo: str | None = Field(
        default=None,
        description="`complete`: all is as before. `incomplete`: the next deploy or start of Asgard will make it so.",
    )
    retry_after: int | None = Field(default=None, description="Seconds after which it is worth trying again.")
    reference: str | None = Field(default=None, description="What to look for in the log.")
