"""All settings, from the environment. Built once, passed in."""

from pathlib import Path
from typing import Annotated, Literal, Self

from platformdirs import user_cache_path, user_data_path
from pydantic import AfterValidator, AliasChoices, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from . import quantities


def _quantity(text: str) -> str:
    quantities.to_bytes(text)
    return text


# Files that hold a token often end with a line break, which no header can carry.
_Token = Annotated[SecretStr, AfterValidator(lambda token: SecretStr(token.get_secret_value().strip()))]

# Commands and the engine run in folders of their own, where a relative path would mean another place.
_Folder = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


class Settings(BaseSettings):
    """One field a setting: `ASGARD_` and the field's name in capitals, unless it says otherwise."""

    model_config = SettingsConfigDict(
        env_prefix="ASGARD_", frozen=True, populate_by_name=True, use_attribute_docstrings=True, env_ignore_empty=True
    )

    data_dir: _Folder = Field(default_factory=lambda: user_data_path("asgard"))
    """Folder of everything that must last: MLflow's database and artifacts, stacks and their state, what serves."""

    cache_dir: _Folder = Field(default_factory=lambda: user_cache_path("asgard"))
    """Folder of what can be made again: environments, by the hash of their lock, and a Pulumi CLI."""

    stacks_dir: _Folder = Field(default_factory=lambda data: data["data_dir"] / "stacks")
    """Pulumi project with a `Pulumi.<model>.yaml` a model; may be a git checkout. Default: in the data folder."""

    backend_url: str = Field(default_factory=lambda data: f"file://{data['data_dir'] / 'backend'}")
    """Pulumi backend of the stacks' state: `file://`, `s3://`, `gs://`, `azblob://`, … Default: in the data folder."""

    target: Literal["local", "kubernetes"] = "local"
    """Where a model that is deployed for the first time runs: `local`, processes on this machine, or `kubernetes`."""

    namespace: str = "asgard"
    """Name of this environment; on a cluster, the namespace of its models."""

    registry: str | None = None
    """Where images go: `ecr`, or `host[:port][/prefix]` of an OCI registry. Needed for the target `kubernetes`."""

    base_image: str = "python:{python}-slim-bookworm"
    """What a model's image is built on; `{python}` becomes its Python, as in `3.11`."""

    image_platform: Literal["linux/amd64", "linux/arm64"] = "linux/amd64"
    """Of the cluster's nodes."""

    kube_context: str | None = None
    """Context of the kubeconfig to use; default: its current one."""

    rollout_timeout_seconds: Annotated[int, Field(gt=0)] = 300
    """Seconds for a version's pods to be ready, image pull included; a model keeps what holds at its first deploy."""

    pull_username: str | None = None
    """User with which the cluster pulls images; for ECR the access key id of an IAM user. Default: the nodes' own."""

    pull_password: SecretStr | None = None
    """That user's password; for ECR the secret access key."""

    aws_region: str = Field(default="eu-north-1", validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"))
    """`AWS_REGION`, or `AWS_DEFAULT_REGION`: where the ECR is."""

    url: str = "http://127.0.0.1:8000"
    """Where the commands that speak HTTP find the API."""

    api_token: _Token | None = None
    """Bearer token that every request must carry. Without one the API listens on loopback only."""

    mlflow_tracking_uri: str | None = Field(default=None, validation_alias="MLFLOW_TRACKING_URI")
    """`MLFLOW_TRACKING_URI`: an MLflow server to use instead of the embedded one. It must proxy artifacts."""

    feast_repo_path: _Folder = Field(default_factory=lambda data: data["data_dir"] / "feast")
    """A Feast repository (a folder with `feature_store.yaml`). Default: one in the data folder, made on first start."""

    max_request_bytes: Annotated[int, Field(gt=0)] = 8 * 1024**2
    """Bytes of a request body; a larger one is answered 413."""

    max_concurrent_deploys: Annotated[int, Field(gt=0)] = 4
    """Deploys that run at once; further ones wait."""

    max_queued_deploys: Annotated[int, Field(ge=0)] = 16
    """Deploys that may wait for a place; further ones are answered 429."""

    training_timeout_seconds: Annotated[float, Field(gt=0)] = 1800
    """Seconds a script may run; then its processes are ended and the answer is 504."""

    training_memory_limit: Annotated[str, AfterValidator(_quantity)] = "8Gi"
    """Memory of a script's whole process tree, as a Kubernetes quantity; past it the script is ended."""

    training_output_limit_bytes: Annotated[int, Field(gt=0)] = 64 * 1024**2
    """Bytes a script may print; past it the script is ended."""

    training_process_limit: Annotated[int, Field(gt=0)] = 256
    """Processes a script may have at once; past it the script is ended."""

    environment_timeout_seconds: Annotated[float, Field(gt=0)] = 1800
    """Seconds that resolving and installing a script's requirements may take."""

    health_timeout_seconds: Annotated[float, Field(gt=0)] = 120
    """Seconds in which a new version must become healthy; else the former one stays and the answer is 504."""

    compile_models: bool = True
    """Whether a model is served by a compiled form where that was found to answer as the model does."""

    shutdown_timeout_seconds: Annotated[int, Field(gt=0)] = 300
    """Seconds that a stopping API waits for running deploys; what is cut then is put right at the next start."""

    @model_validator(mode="after")
    def _has_what_its_target_needs(self) -> Self:
        if self.target == "kubernetes" and self.registry is None:
            raise ValueError("ASGARD_TARGET=kubernetes needs ASGARD_REGISTRY")
        return self
