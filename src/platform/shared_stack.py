"""The stack `platform`: brought up by `asgard platform up`, and by the first deploy to a cluster that finds none."""

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import SecretStr
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from .. import naming
from ..errors import DeployInProgress, InfrastructureFailed
from ..settings import Settings
from ..stacks.spec import KubernetesConfig, PlatformSpec
from . import cluster, ecr, secrets, stackfile
from .engine import Engine
from .images import base
from .locks import model_lock
from .stackfile import PlatformFile

RENEWAL_PYTHON: Final = "3.12"
"""Of the image in which pull credentials are renewed, where `ASGARD_BASE_IMAGE` leaves it open."""

BUSY_SECONDS: Final = 300
"""How long to wait for another process that brings up the same stack."""

OnLog = Callable[[str], None]


def ensure(settings: Settings, engine: Engine, on_log: OnLog) -> None:
    """Bring the stack up unless that was done before, by this process or another, and the namespace is there."""
    if not (found := engine.outputs(naming.PLATFORM_STACK, token=_token())):
        on_log(f"Bringing up the stack {naming.PLATFORM_STACK}: there is none yet")
        up(settings, engine, on_log)
        return
    _require_cluster(found, cluster.identity(settings))
    if not cluster.has_namespace(settings):
        on_log(f"Bringing up the stack {naming.PLATFORM_STACK}: the namespace {settings.namespace} is not there")
        up(settings, engine, on_log)


def require_cluster(settings: Settings, engine: Engine) -> None:
    """Raise InfrastructureFailed where the models are on another cluster: to this one they would all be gone."""
    _require_cluster(engine.outputs(naming.PLATFORM_STACK, token=_token()), cluster.identity(settings))


def _require_cluster(found: Mapping[str, Any], here: str | None) -> None:
    """`found`: the stack's outputs."""
    if here is not None and found.get("cluster", here) != here:
        raise InfrastructureFailed(
            f"The stack {naming.PLATFORM_STACK}, and the models with it, are on another cluster. Set "
            "ASGARD_KUBE_CONTEXT to that one's context, or give this cluster a data folder of its own "
            "(ASGARD_DATA_DIR). If that one is gone for good, have it forgotten, then go on with this one: "
            f"`asgard pulumi -- stack rm {naming.PLATFORM_STACK} --force`.",
            reason="ClusterChanged",
        )


@retry(
    retry=retry_if_exception_type(DeployInProgress),
    stop=stop_after_delay(BUSY_SECONDS),
    wait=wait_fixed(2),
    reraise=True,
)
def up(settings: Settings, engine: Engine, on_log: OnLog) -> None:
    """Make the stack be what the settings say, also where somebody took a part of it away. Raises InfrastructureFailed.

    It is that of one namespace: brought up for another, it would take its own away with the models in it. On another
    cluster it would make a namespace its own that somebody else has there.
    """
    with model_lock(settings.data_dir, naming.PLATFORM_STACK):
        engine.free_dead_lock(naming.PLATFORM_STACK)
        path = stackfile.path_of(settings.stacks_dir, naming.PLATFORM_STACK)
        phrase = secrets.passphrase(settings)
        former = stackfile.read_platform(path, phrase)
        found, here = engine.outputs(naming.PLATFORM_STACK, token=_token()), cluster.identity(settings)
        _require_cluster(found, here)
        same = former is not None and former.spec.namespace == settings.namespace
        if former is not None and not same and found:
            raise InfrastructureFailed(
                f"The stack {naming.PLATFORM_STACK} has the namespace {former.spec.namespace}, and the models in it "
                f"would go with that. Set ASGARD_NAMESPACE={former.spec.namespace}, or give {settings.namespace} a "
                "data folder of its own (ASGARD_DATA_DIR).",
                reason="NamespaceChanged",
            )
        owned = former is not None and same and former.spec.creates_namespace
        creates_namespace = owned or not cluster.has_namespace(settings)
        spec = _spec(settings, creates_namespace=creates_namespace, where=here)
        content = PlatformFile(spec, _credentials(settings))
        stackfile.write(path, content, phrase)
        engine.up(naming.PLATFORM_STACK, token=_token(), on_log=on_log, refresh=True)


def target(settings: Settings) -> KubernetesConfig:
    """What the settings say of a model that is deployed to the cluster for the first time."""
    return KubernetesConfig(
        registry=registry(settings), region=region(settings), rollout_timeout_seconds=settings.rollout_timeout_seconds
    )


def registry(settings: Settings) -> str:
    """`ASGARD_REGISTRY`. Raises InfrastructureFailed."""
    if settings.registry is None:
        raise InfrastructureFailed(
            "ASGARD_REGISTRY is not set: `ecr`, or `host[:port]/prefix` of the registry that the cluster pulls from."
        )
    return settings.registry


def region(settings: Settings) -> str | None:
    """Of ECR; None for any other registry."""
    return settings.aws_region if registry(settings) == "ecr" else None


def _spec(settings: Settings, *, creates_namespace: bool, where: str | None) -> PlatformSpec:
    return PlatformSpec(
        namespace=settings.namespace,
        creates_namespace=creates_namespace,
        cluster=where,
        registry=registry(settings),
        region=region(settings),
        endpoint=ecr.endpoint() if registry(settings) == "ecr" else None,
        image=settings.base_image.replace(base.PLACEHOLDER, RENEWAL_PYTHON),
    )


def _credentials(settings: Settings) -> dict[str, str]:
    given = (settings.pull_username, settings.pull_password)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if registry(settings) == "ecr" else ("USERNAME", "PASSWORD")
    return {name: _plain(value) for name, value in zip(names, given, strict=True) if value is not None}


def _plain(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _token() -> str:
    return uuid.uuid4().hex
