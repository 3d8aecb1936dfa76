"""An API on a cluster that dies, is replaced, or is not alone."""

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from ..cluster.model import Cluster
from ..waiting import until
from .clusters import NAMESPACE, ROW, SMALL, constant, objects, statuses, tags, under_load
from .live import Live, body, predict

SLOW = "import time\nprint('started')\ntime.sleep(1)\n"


@pytest.fixture(scope="module")
def mortal(make_live: Callable[..., Live], cluster_settings: dict[str, str], on_cluster: Live) -> Live:
    """An API that tests kill and start again, with an MLflow that goes on."""
    live = make_live(**cluster_settings, MLFLOW_TRACKING_URI=on_cluster.status()["mlflow_uri"])
    live.ready()
    return live


def kill_when(live: Live, model: str, script: str, said: Callable[[dict[str, str]], bool]) -> None:
    """Deploy, and `kill -9` the API with all its processes, as a pod's end does, at the first such event."""
    with (
        httpx.Client(timeout=900) as client,
        client.stream(
            "POST",
            f"{live.url}/mlops/deploy",
            json=body(script, model, deployment_config=SMALL),
            headers={"Accept": "text/event-stream"},
        ) as response,
    ):
        for line in response.iter_lines():
            if line.startswith("data: ") and said(json.loads(line.removeprefix("data: "))):
                assert live.process is not None
                below = psutil.Process(live.process.pid).children(recursive=True)
                live.kill()
                for process in below:
                    if process.is_running():
                        process.kill()
                return
    raise AssertionError("the deploy ended before")


def start_again(live: Live) -> None:
    live.start()
    live.ready()
    left = ("deploys/*/journal.json", "locks/*.lock")
    until(lambda: not any(list(live.data_dir.glob(each)) for each in left), "what the dead deploy left is undone", 180)


BORDERS: dict[str, Callable[[dict[str, str]], bool]] = {
    "environment": lambda event: event.get("stage") == "environment",
    "training": lambda event: event.get("stage") == "training",
    "registration": lambda event: event.get("stage") == "registration",
    "bundle": lambda event: event.get("stage") == "bundle",
    "infrastructure, early": lambda event: "update asgard:index:Image" in event.get("line", ""),
    "infrastructure, late": lambda event: "update kubernetes:apps/v1:Deployment" in event.get("line", ""),
}


def test_after_kill_9_at_each_border_the_old_version_answers_and_the_next_deploy_succeeds(
    mortal: Live, cluster: Cluster
) -> None:
    live = mortal
    first = live.deploy(constant(1), "iris-k", deployment_config=SMALL)
    url, text = first["inference_url"], live.stack_file("iris-k").read_text()
    with under_load(url) as failed:
        for border, said in BORDERS.items():
            kill_when(live, "iris-k", SLOW + constant(2), said)
            if border == "infrastructure, late":
                _give_the_lock_to_a_later_process(live, "iris-k")
            start_again(live)
            assert predict(url, ROW) == [1], border
            assert live.stack_file("iris-k").read_text() == text, border
            assert tags(cluster, "iris-k") == sorted([first["deployment_id"], "serving"]), border
            assert live.processes(f"{live.data_dir}/deploys") == [], border
        live.pulumi("preview", "--expect-no-changes", "-s", "iris-k")
        second = live.deploy(constant(3), "iris-k")
    assert failed == {url: []}
    assert second["inference_url"] == url
    assert predict(url, ROW) == [3]
    found = statuses(live, "iris-k")
    assert found.pop(1) is None
    assert found.pop(max(found)) is None
    assert set(found.values()) == {"failed"}
    live.cli("destroy", "iris-k", "--yes")
    assert objects(cluster, "iris-k") == []


def _give_the_lock_to_a_later_process(live: Live, model: str) -> None:
    """As in a pod that replaces another under the same name: the number that took the lock is another process's."""
    [lock] = (live.data_dir / "backend" / ".pulumi" / "locks").rglob(f"{model}/*.json")
    holder = json.loads(lock.read_text())
    later.append(subprocess.Popen(["sleep", "3600"]))
    lock.write_text(json.dumps({**holder, "pid": later[-1].pid}))


later: list[subprocess.Popen[bytes]] = []


@pytest.fixture(scope="module", autouse=True)
def _end_later() -> Iterator[None]:
    yield
    for process in later:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["core/v1:Service", "apps/v1:Deployment"])
def test_after_kill_9_while_a_first_version_is_made_nothing_is_left_and_the_next_deploy_succeeds(
    mortal: Live, cluster: Cluster, kind: str
) -> None:
    live, model = mortal, f"new-{kind.split(':')[1].lower()}"
    with cluster.without_address(NAMESPACE, model):
        kill_when(
            live,
            model,
            constant(1),
            lambda event: (
                f"create kubernetes:{kind}" in event.get("line", "")
                and bool(until(lambda: f"{kind.split(':')[1]} {model}" in objects(cluster, model), "it is made"))
            ),
        )
    start_again(live)
    assert objects(cluster, model) == []
    assert tags(cluster, model) == []
    assert not live.stack_file(model).exists()
    assert statuses(live, model) == {1: "failed"}
    answer = live.deploy(constant(2), model, deployment_config=SMALL)
    assert predict(answer["inference_url"], ROW) == [2]
    live.cli("destroy", model, "--yes")
    assert objects(cluster, model) == []


@pytest.fixture(scope="module")
def another(make_live: Callable[..., Live], cluster_settings: dict[str, str], on_cluster: Live) -> Live:
    """A second API on the same backend and MLflow, with a data folder of its own."""
    live = make_live(
        **cluster_settings,
        ASGARD_BACKEND_URL=f"file://{on_cluster.data_dir / 'backend'}",
        MLFLOW_TRACKING_URI=on_cluster.status()["mlflow_uri"],
        PULUMI_CONFIG_PASSPHRASE_FILE=str(on_cluster.data_dir / "passphrase"),
    )
    live.ready()
    return live


def test_two_apis_on_one_backend_deploy_different_models_and_the_same_one_only_once(
    on_cluster: Live, another: Live, cluster: Cluster
) -> None:
    def deploy(pair: tuple[Live, str]) -> dict[str, Any]:
        return pair[0].deploy(constant(1), pair[1], deployment_config=SMALL)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(deploy, [(on_cluster, "here"), (another, "there")]))
        assert [predict(answer["inference_url"], ROW) for answer in answers] == [[1], [1]]

        with cluster.without_address(NAMESPACE, "wanted"):
            winner = pool.submit(deploy, (on_cluster, "wanted"))
            until(lambda: "Service wanted" in objects(cluster, "wanted"), "the winner waits for an address", 300)
            lost = another.post(body(constant(2), "wanted", deployment_config=SMALL))
        assert lost.status_code == 409, lost.text
        won = winner.result()
    assert predict(won["inference_url"], ROW) == [1]
    assert statuses(on_cluster, "wanted") == {1: None, 2: "failed"}
    assert not another.stack_file("wanted").exists()
    on_cluster.pulumi("preview", "--expect-no-changes", "-s", "wanted")

    unknown = another.post(body(constant(2), "wanted", deployment_config=SMALL))
    assert (unknown.status_code, unknown.json()["reason"]) == (502, "StackFileMissing")
    assert statuses(on_cluster, "wanted") == {1: None, 2: "failed"}  # nothing was trained for it
    assert predict(won["inference_url"], ROW) == [1]
    for live, model in ((on_cluster, "here"), (another, "there"), (on_cluster, "wanted")):
        live.cli("destroy", model, "--yes")
        assert objects(cluster, model) == []
