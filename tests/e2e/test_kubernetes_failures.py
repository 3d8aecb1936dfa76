"""Whatever fails on the cluster or at the registry: what served serves on, nothing is left over, and why is said."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ..cluster.model import Cluster
from ..platform.images.front import Fault, Front
from ..waiting import until
from .clusters import NAMESPACE, ROW, SMALL, constant, objects, statuses, tags, under_load
from .live import Live, body, predict
from .test_stack import edit

ALWAYS = 1_000_000
CRASHES = constant(2, 'raise RuntimeError("this model does not like containers")')
EATS = constant(2, "self.eaten = os.urandom(2**30)")
FINE = constant(2)

UPDATES: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "crashes": ({"script": CRASHES, "environment_vars": {"TOKEN": "new"}}, 502, "Crashed", "does not like containers"),
    "eats-memory": ({"script": EATS}, 502, "OOMKilled", ""),
    "fits-nowhere": ({"deployment_config": {"memory_limit": "900Gi"}}, 504, "FailedScheduling", "Insufficient memory"),
    "is-not-pulled": ({}, 502, "ImagePullBackOff", "Failed to pull image"),
    "pull-unauthorized": ({}, 502, "ImagePullBackOff", "401 Unauthorized"),
    "is-not-pushed": ({}, 502, "RegistryUnavailable", ""),
    "push-unauthorized": ({}, 502, "Unauthorized", ""),
}
"""By model: what is posted of a second version, and the answer's status, reason, and a word of its last lines."""

CHALLENGE = {"WWW-Authenticate": 'Basic realm="registry"'}


@pytest.fixture(scope="module")
def impatient(make_live: Callable[..., Live], cluster_settings: dict[str, str], on_cluster: Live) -> Live:
    """An API that does not wait long, with the MLflow of the other."""
    uri = on_cluster.status()["mlflow_uri"]
    live = make_live(**cluster_settings, ASGARD_ROLLOUT_TIMEOUT_SECONDS="60", MLFLOW_TRACKING_URI=uri)
    live.ready()
    return live


@pytest.fixture(scope="module")
def served(on_cluster: Live) -> dict[str, dict[str, Any]]:
    """A first version of each, small enough to be on the cluster at the same time."""

    def deploy(model: str) -> dict[str, Any]:
        return on_cluster.deploy(constant(1), model, deployment_config=SMALL, environment_vars={"TOKEN": "old"})

    first, *rest = UPDATES
    answers = {first: deploy(first)}  # whose environment the others share
    with ThreadPoolExecutor(4) as pool:
        answers |= zip(rest, pool.map(deploy, rest), strict=True)
    # By hand, in the file alone: the next deploy keeps and applies it.
    edit(on_cluster, "fits-nowhere", lambda model: model["kubernetes"].update(rollout_timeout_seconds=60))
    return answers


@pytest.fixture(scope="module")
def files(on_cluster: Live, served: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {model: on_cluster.stack_file(model).read_text() for model in served}


@pytest.fixture(scope="module")
def standing(cluster: Cluster, served: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """What there is of each before a second version is tried."""
    return {model: objects(cluster, model) for model in served}


@pytest.fixture(scope="module")
def problems(
    on_cluster: Live,
    before_registry: Front,
    served: dict[str, dict[str, Any]],
    files: dict[str, str],
    standing: dict[str, list[str]],
) -> dict[str, dict[str, Any]]:
    """What the second versions' deploys, all at once, are answered; with `lost`: requests that the first failed."""
    faults = [
        Fault(r"/v2/acme/is-not-pulled/", 503, times=ALWAYS, agent="containerd"),
        Fault(r"/v2/acme/pull-unauthorized/", 401, CHALLENGE, times=ALWAYS, agent="containerd"),
        Fault(r"/v2/acme/is-not-pushed/", 503, times=ALWAYS, agent="asgard"),
        Fault(r"/v2/acme/push-unauthorized/", 401, CHALLENGE, times=ALWAYS, agent="asgard"),
    ]

    def post(model: str) -> dict[str, Any]:
        fields = {"script": FINE, **UPDATES[model][0]}
        response = on_cluster.post(body(fields.pop("script"), model, **fields))
        return {**response.json(), "status": response.status_code}

    urls = {model: answer["inference_url"] for model, answer in served.items()}
    before_registry.faults += faults
    try:
        with under_load(*urls.values()) as lost, ThreadPoolExecutor(len(UPDATES)) as pool:
            answers = dict(zip(UPDATES, pool.map(post, UPDATES), strict=True))
    finally:
        for fault in faults:
            before_registry.faults.remove(fault)
    return {model: {**answer, "lost": lost[urls[model]]} for model, answer in answers.items()}


@pytest.mark.parametrize("model", UPDATES)
def test_a_version_that_cannot_be_brought_up_says_why_and_the_former_one_serves_on(
    on_cluster: Live,
    cluster: Cluster,
    served: dict[str, dict[str, Any]],
    files: dict[str, str],
    problems: dict[str, dict[str, Any]],
    model: str,
) -> None:
    _, status, reason, told = UPDATES[model]
    problem = problems[model]
    assert (problem["status"], problem.get("reason")) == (status, reason), problem
    assert told in "\n".join(problem.get("log_tail", []))
    assert problem["stage"] == "infrastructure"
    assert problem["undo"] == "complete"
    assert problem["lost"] == []
    assert predict(served[model]["inference_url"], ROW) == [1]
    assert on_cluster.stack_file(model).read_text() == files[model]
    assert tags(cluster, model) == sorted([served[model]["deployment_id"], "serving"])
    assert statuses(on_cluster, model) == {1: None, 2: "failed"}
    found = on_cluster.get(f"/mlops/models/{model}")
    assert found["tags"]["asgard.deployment_id"] == served[model]["deployment_id"]
    assert [version["current_stage"] for version in found["versions"]] == ["None", "Production"]


def test_an_undo_keeps_the_pods_and_the_secret_that_there_were(
    cluster: Cluster, standing: dict[str, list[str]], problems: dict[str, dict[str, Any]]
) -> None:
    until(lambda: objects(cluster, "crashes") == standing["crashes"], "the same objects are there", 120)


def test_after_that_the_stack_is_what_its_file_says(on_cluster: Live, problems: dict[str, dict[str, Any]]) -> None:
    for model in ("crashes", "is-not-pulled"):
        on_cluster.pulumi("preview", "--expect-no-changes", "-s", model)


def test_a_rollout_that_cannot_succeed_is_not_waited_for_to_its_end(
    on_cluster: Live, problems: dict[str, dict[str, Any]]
) -> None:
    said = [line for line in on_cluster.log.read_text().splitlines() if "the new pods cannot become ready" in line]
    for model in ("crashes", "eats-memory", "is-not-pulled", "pull-unauthorized"):
        assert [line for line in said if f"model={model}" in line], problems[model]


def test_a_first_version_that_crashes_or_gets_no_address_leaves_nothing(impatient: Live, cluster: Cluster) -> None:
    posts = {"stillborn": CRASHES, "unreachable": FINE}

    def post(model: str) -> dict[str, Any]:
        response = impatient.post(body(posts[model], model, deployment_config=SMALL))
        return {**response.json(), "status": response.status_code}

    with cluster.without_address(NAMESPACE, "unreachable"), ThreadPoolExecutor(2) as pool:
        crashed, unreachable = pool.map(post, posts)
    assert (crashed["status"], crashed["reason"]) == (502, "Crashed"), crashed
    assert unreachable["status"] == 504, unreachable
    stacks = impatient.pulumi("stack", "ls", "--json").stdout
    for model, problem in zip(posts, (crashed, unreachable), strict=True):
        assert problem["undo"] == "complete"
        assert objects(cluster, model) == []
        assert tags(cluster, model) == []
        assert not impatient.stack_file(model).exists()
        assert f'"{model}"' not in stacks
        assert statuses(impatient, model) == {1: "failed"}


def test_a_model_is_destroyed_also_where_the_registry_allows_no_deleting(
    on_cluster: Live, cluster: Cluster, before_registry: Front
) -> None:
    answer = on_cluster.deploy(FINE, "kept", deployment_config=SMALL)
    refusal = Fault(r"^DELETE /v2/acme/kept/", 405, times=ALWAYS)
    before_registry.faults.append(refusal)
    done = on_cluster.cli("destroy", "kept", "--yes")
    assert "allows no deleting" in done.stdout + done.stderr
    assert objects(cluster, "kept") == []
    assert tags(cluster, "kept") == sorted([answer["deployment_id"], "serving"])
