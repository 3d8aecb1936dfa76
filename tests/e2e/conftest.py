import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asgard.serving import control

from ..cluster import access
from ..cluster.model import Cluster
from ..platform.images import front
from ..platform.images.front import Front
from ..ports import free_port
from ..standins import kubernetes_provider
from .clusters import NAMESPACE, RBAC
from .live import Live


@pytest.fixture(scope="session")
def make_live(
    tmp_path_factory: pytest.TempPathFactory, pulumi_path: str, test_cache: Path
) -> Iterator[Callable[..., Live]]:
    """Start further APIs, each on a data folder of its own; all are ended with the session."""
    made: list[Live] = []

    def make(**extra: str) -> Live:
        # The folder's name has a space and is long: unix socket paths are short.
        folder = tmp_path_factory.mktemp("data folder") / ("of a platform engineer with a long path " * 2).strip()
        folder.mkdir()
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ASGARD_", "MLFLOW_"))}
        environment |= {
            "PATH": pulumi_path,
            "ASGARD_DATA_DIR": str(folder),
            "ASGARD_CACHE_DIR": str(test_cache / "asgard"),
            **extra,
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        live = Live(folder, environment, free_port())
        made.append(live)
        live.start()
        return live

    yield make
    for live in made:
        live.stop()
        for directory in (live.data_dir / "models").glob("*"):
            control.stop(directory)


@pytest.fixture(scope="session")
def live(make_live: Callable[..., Live]) -> Live:
    live = make_live()
    live.ready()
    return live


@pytest.fixture(scope="session")
def before_registry(cluster: Cluster) -> Iterator[Front]:
    """What the registry is reached by: it fails on demand."""
    with front.running(cluster.registry) as running:
        yield running


@pytest.fixture(scope="session")
def cluster_settings(cluster: Cluster, before_registry: Front) -> Iterator[dict[str, str]]:
    """Environment of an API and its commands that deploy to the cluster, with the documented role and no more."""
    kubeconfig = access.for_service_account(cluster, "asgard", [RBAC], namespace=NAMESPACE)
    with kubernetes_provider(kubeconfig) as attached:
        yield {
            "ASGARD_TARGET": "kubernetes",
            "ASGARD_NAMESPACE": NAMESPACE,
            "ASGARD_REGISTRY": f"{before_registry.host}/acme",
            "ASGARD_BASE_IMAGE": cluster.base_image,
            "ASGARD_MAX_CONCURRENT_DEPLOYS": "8",
            "KUBECONFIG": str(kubeconfig),
            **({"PULUMI_DEBUG_PROVIDERS": ",".join(attached)} if attached else {}),
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }


@pytest.fixture(scope="session")
def on_cluster(make_live: Callable[..., Live], cluster_settings: dict[str, str]) -> Live:
    """An API whose models run there."""
    live = make_live(**cluster_settings)
    live.ready()
    return live
