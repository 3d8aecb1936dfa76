"""What MLflow says serves, brought in line with what does: plain `pulumi` changes that without telling MLflow."""

import uuid
from dataclasses import dataclass

from .. import naming
from ..serving.desired import Desired
from ..settings import Settings
from ..stacks.provider import local_server
from . import registry, stackfile
from .engine import Engine
from .tracking import Tracking


@dataclass(frozen=True)
class _Serving:
    version: int
    url: str
    deployment_id: str


def correct(settings: Settings, tracking: Tracking, engine: Engine) -> None:
    """Set alias and tags on the models that serve, and take them from the ones that do not.

    Of an MLflow that is not ours only those with a stack file here: the others may be another Asgard's.
    """
    local = {desired.name: _here(desired) for desired in local_server.serving(settings.data_dir)}
    elsewhere = _elsewhere(settings)
    ours = set(stackfile.models(settings.stacks_dir))
    for model in registry.list_models(tracking):
        serving = _recorded(engine, model.name) if model.name in elsewhere else local.get(model.name)
        said = (model.tags.get(naming.TAG_INFERENCE_URL), model.tags.get(naming.TAG_DEPLOYMENT_ID))
        if serving is None:
            if naming.TAG_INFERENCE_URL in model.tags and (tracking.is_embedded or model.name in ours):
                registry.unmark_serving(tracking, model.name)
        elif said != (serving.url, serving.deployment_id):
            registry.mark_serving(tracking, model.name, serving.version, serving.url, serving.deployment_id)


def _here(desired: Desired) -> _Serving:
    version, run_id = desired.release["version"], desired.release["run_id"]
    return _Serving(version, local_server.url(desired.port), naming.deployment_id(desired.name, version, run_id))


def _elsewhere(settings: Settings) -> set[str]:
    """The models that have a stack on a cluster."""
    return {spec.name for spec in stackfile.specs(settings.stacks_dir) if spec.target != "local"}


def _recorded(engine: Engine, model: str) -> _Serving | None:
    """What the stack's state says; None: nothing is up."""
    outputs = engine.outputs(model, token=uuid.uuid4().hex)
    if "inference_url" not in outputs:
        return None
    return _Serving(int(outputs["model_version"]), outputs["inference_url"], outputs["deployment_id"])
