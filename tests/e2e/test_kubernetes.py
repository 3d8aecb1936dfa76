"""The same REST calls and the same `pulumi`, with the models on a real cluster.

The kubernetes provider is a stand-in, attached to the engine: see tests/standins/kubernetes.
"""

import json
import shutil
from typing import Any

import httpx
import pytest
from lightkube.resources.apps_v1 import Deployment
from ruamel.yaml import YAML

from ..cluster.model import Cluster
from ..waiting import until
from .clusters import KINDS, NAMESPACE, ROW, objects, ready, steps, tags, under_load
from .live import EXAMPLE, HTTP, Live, predict
from .test_stack import edit, metadata

OTHER = EXAMPLE.read_text().replace("random_state=42", "random_state=7")
RELEASE = {"version", "run_id", "digest", "bundle"}


def model_of(live: Live, model: str) -> Any:
    return YAML().load(live.stack_file(model).read_text())["config"]["asgard-models:model"]


def test_a_model_is_deployed_updated_rolled_back_inspected_and_torn_down(on_cluster: Live, cluster: Cluster) -> None:
    live = on_cluster
    first = live.deploy(EXAMPLE.read_text(), "iris", environment_vars={"TOKEN": "s3cret-value"})
    url = first["inference_url"]
    assert url.startswith("http://127.")
    assert first["namespace"] == NAMESPACE
    assert first["image_uri"].endswith(f"/acme/iris:{first['deployment_id']}")
    assert predict(url, ROW)
    assert metadata(url)["run_id"] == first["run_id"]
    assert "s3cret-value" not in live.pulumi("stack", "export", "-s", "iris").stdout
    live.pulumi("preview", "--expect-no-changes", "-s", "iris")

    edit(live, "iris", lambda model: model["deployment"].update(cpu_limit="900m"))
    before = live.stack_file("iris").read_text().splitlines()
    with under_load(url) as failed:
        second = live.deploy(OTHER, "iris")
        assert second["inference_url"] == url
        assert metadata(url)["run_id"] == second["run_id"]
        after = live.stack_file("iris").read_text().splitlines()
        changed = {new.split(":")[0].strip() for old, new in zip(before, after, strict=True) if old != new}
        assert changed == RELEASE
        assert limits(cluster, "iris")["cpu"] == "900m"  # kept, and applied
        newer = model_of(live, "iris")["release"]
        live.cli("rollback", "iris")
        assert metadata(url)["run_id"] == first["run_id"]
    assert failed == {url: []}
    live.pulumi("preview", "--expect-no-changes", "-s", "iris")
    assert tags(cluster, "iris") == sorted([first["deployment_id"], second["deployment_id"], "serving"])

    release = model_of(live, "iris")["release"]
    edit(live, "iris", lambda model: model.update(release=newer))
    assert steps(live, "iris") == {
        "asgard:index:Image": ("update", {"tag", "digest", "bundle"}),
        "kubernetes:apps/v1:Deployment": (
            "update",
            {
                "spec.template.spec.containers[0].image",
                'spec.template.metadata.annotations["asgard.dev/deployment-id"]',
                'spec.template.metadata.annotations["asgard.dev/run-id"]',
            },
        ),
    }
    edit(live, "iris", lambda model: model.update(release=release))

    edit(live, "iris", lambda model: model["deployment"].update(replicas=2))
    assert steps(live, "iris") == {
        "kubernetes:apps/v1:Deployment": ("update", {"spec.replicas"}),
        "kubernetes:policy/v1:PodDisruptionBudget": ("create", set()),
    }
    live.pulumi("up", "--yes", "--skip-preview", "-s", "iris")
    assert ready(cluster, "iris") == 2

    cluster.client(NAMESPACE).patch(Deployment.Scale, "iris", {"spec": {"replicas": 1}})
    live.pulumi("refresh", "--yes", "-s", "iris")
    assert steps(live, "iris") == {"kubernetes:apps/v1:Deployment": ("update", {"spec.replicas"})}
    live.pulumi("up", "--yes", "--skip-preview", "-s", "iris")
    assert ready(cluster, "iris") == 2

    live.pulumi("destroy", "--yes", "--skip-preview", "-s", "iris")
    assert objects(cluster, "iris") == []
    assert tags(cluster, "iris") == []
    with pytest.raises(httpx.TransportError):
        HTTP.get(f"{url}/health")

    live.pulumi("up", "--yes", "--skip-preview", "-s", "iris")
    assert metadata(outputs(live, "iris")["inference_url"])["run_id"] == first["run_id"]
    live.pulumi("preview", "--expect-no-changes", "-s", "iris")


def limits(cluster: Cluster, model: str) -> Any:
    spec = cluster.client(NAMESPACE).get(Deployment, model).spec
    assert spec is not None
    assert spec.template.spec is not None
    resources = spec.template.spec.containers[0].resources
    assert resources is not None
    return resources.limits


def outputs(live: Live, model: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(live.pulumi("stack", "output", "--json", "-s", model).stdout)
    return found


def test_the_file_alone_builds_the_same_on_an_empty_cluster_and_names_the_bundle_where_that_is_gone(
    on_cluster: Live, cluster: Cluster
) -> None:
    live, before, client = on_cluster, objects(cluster, "iris"), cluster.client(NAMESPACE)
    for kind in KINDS[:-1]:
        for item in client.list(kind, labels={"app.kubernetes.io/name": "iris"}):
            client.delete(kind, item.metadata.name)
    until(lambda: not objects(cluster, "iris"), "the cluster is empty", 120)
    live.pulumi("stack", "rm", "--yes", "--force", "--preserve-config", "-s", "iris")
    live.pulumi("stack", "init", "-s", "iris", "--no-select", "--secrets-provider", "passphrase")
    live.pulumi("up", "--yes", "--skip-preview", "-s", "iris")
    assert predict(outputs(live, "iris")["inference_url"], ROW)
    assert ready(cluster, "iris") == 2
    assert len(objects(cluster, "iris")) == len(before)

    live.pulumi("destroy", "--yes", "--skip-preview", "-s", "iris")
    bundle = model_of(live, "iris")["release"]["bundle"]
    shutil.rmtree(live.data_dir / "mlflow" / "artifacts" / str(bundle).removeprefix("mlflow-artifacts:/"))
    gone = live.pulumi("up", "--yes", "--skip-preview", "-s", "iris", check=False)
    assert gone.returncode != 0
    assert bundle in gone.stdout
    live.cli("destroy", "iris", "--yes", "--purge")
    assert objects(cluster, "iris") == []
