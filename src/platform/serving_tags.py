"""What MLflow says serves, brought in line with what does: plain `pulumi` changes that without telling MLflow."""

from .. import naming
from ..settings import Settings
from ..stacks.provider import local_server
from . import registry
from .tracking import Tracking


def correct(settings: Settings, tracking: Tracking) -> None:
    """Set alias and tags on the models that serve, and take them from the ones that do not."""
    serving = {desired.name: desired for desired in local_server.serving(settings.data_dir)}
    for model in registry.list_models(tracking):
        desired = serving.get(model.name)
        if desired is None:
            if naming.TAG_INFERENCE_URL in model.tags:
                registry.unmark_serving(tracking, model.name)
            continue
        version, run_id = desired.release["version"], desired.release["run_id"]
        url, identifier = local_server.url(desired.port), naming.deployment_id(model.name, version, run_id)
        said = (model.tags.get(naming.TAG_INFERENCE_URL), model.tags.get(naming.TAG_DEPLOYMENT_ID))
        if said != (url, identifier):
            registry.mark_serving(tracking, model.name, version, url, identifier)
