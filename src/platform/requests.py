"""What a deploy is asked to do. Already validated: whoever builds one has checked every field."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DeploymentChanges:
    """The fields of `deployment_config` in the request; None: keep the stack file's value, or the default."""

    replicas: int | None = None
    memory_limit: str | None = None
    cpu_limit: str | None = None


@dataclass(frozen=True)
class DeployRequest:
    """One POST. `environment_vars` and `tags`: None where the request does not contain them."""

    script: bytes
    script_name: str
    experiment_name: str
    model_name: str
    requirements: tuple[str, ...]
    environment_vars: Mapping[str, str] | None = None
    deployment_config: DeploymentChanges = field(default_factory=DeploymentChanges)
    tags: Mapping[str, str] | None = None
