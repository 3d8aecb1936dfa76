"""What plain `pulumi` says and does after a deploy, with the API running and without it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import psutil
import pytest
from ruamel.yaml import YAML

from asgard.serving import control

from ..waiting import until
from .live import EXAMPLE, HTTP, Live, files, predict

ROW = [[0.1, -0.2, 0.3, 0.4, -0.5]]


def pids_that_answer(url: str, rounds: int = 100) -> set[int]:
    """Worker processes that answer new connections."""
    return {HTTP.get(f"{url}/health").json()["worker_pid"] for _ in range(rounds)}


def edit(live: Live, model: str, change: Callable[[Any], None]) -> None:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000  # as an editor: lines stay as long as they are
    path = live.stack_file(model)
    document = yaml.load(path.read_text())
    change(document["config"]["asgard-models:model"])
    with path.open("w") as file:
        yaml.dump(document, file)


def metadata(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = HTTP.get(f"{url}/metadata").raise_for_status().json()
    return answer


@pytest.fixture(scope="module")
def own(make_live: Callable[..., Live]) -> Live:
    """An API with nothing but this module's models."""
    live = make_live()
    live.ready()
    return live


@pytest.mark.parametrize("api", ["runs", "is stopped"])
def test_the_stack_is_inspected_changed_and_torn_down_with_plain_pulumi(own: Live, api: str) -> None:
    live = own
    live.deploy("import mlflow\n" + EXAMPLE.read_text(), "other")
    before = files(live.data_dir / "models") | files(live.data_dir / "bundles") | files(live.data_dir / "deploys")
    first = live.deploy(
        EXAMPLE.read_text(), "iris", environment_vars={"TOKEN": "s3cret-value"}, deployment_config={"replicas": 1}
    )
    old = YAML().load(live.stack_file("iris").read_text())["config"]["asgard-models:model"]["release"]
    answer = live.deploy(EXAMPLE.read_text().replace("random_state=42", "random_state=7"), "iris")
    url = answer["inference_url"]
    if api == "is stopped":
        live.stop()

    stacks = json.loads(live.pulumi("stack", "ls", "--json").stdout)
    assert {stack["name"] for stack in stacks} == {"iris", "other"}

    outputs = json.loads(live.pulumi("stack", "output", "--json", "-s", "iris").stdout)
    assert outputs == {name: answer[name] for name in outputs}
    assert set(answer) - set(outputs) == {"deployment_time_seconds", "created_at"}

    exported = live.pulumi("stack", "export", "-s", "iris").stdout
    assert "asgard:index:LocalServer" in exported
    assert "s3cret-value" not in exported

    live.pulumi("preview", "--expect-no-changes", "-s", "iris")

    edit(live, "iris", lambda model: model["deployment"].update(replicas=3))
    assert live.pulumi("preview", "--expect-no-changes", "-s", "iris", check=False).returncode != 0
    live.pulumi("up", "--yes", "--skip-preview", "-s", "iris")
    until(lambda: len(pids_that_answer(url)) == 3, "three workers answer")

    edit(live, "iris", lambda model: model.update(release=old))
    live.pulumi("up", "--yes", "--skip-preview", "-s", "iris")
    assert metadata(url)["run_id"] == first["run_id"]
    assert predict(url, ROW)

    workers = pids_that_answer(url)
    live.pulumi("destroy", "--yes", "--skip-preview", "-s", "iris")
    with pytest.raises(httpx.ConnectError):
        HTTP.get(f"{url}/health")
    assert not [pid for pid in workers if _runs(pid)]
    assert live.processes(f"{live.data_dir}/models/iris") == []
    after = files(live.data_dir / "models") | files(live.data_dir / "bundles") | files(live.data_dir / "deploys")
    assert after == before
    if api == "is stopped":
        live.start()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_up_that_is_interrupted_gives_back_what_served_and_the_next_one_succeeds(live: Live) -> None:
    url = live.deploy(EXAMPLE.read_text(), "interrupted")["inference_url"]
    before = pids_that_answer(url)
    edit(live, "interrupted", lambda model: model["deployment"].update(cpu_limit="900m"))
    serving = control.status(live.data_dir / "models" / "interrupted")
    assert serving is not None
    parent = psutil.Process(serving.parent_pid)
    processes = set(parent.children(recursive=True))
    command = [sys.executable, "-m", "asgard.cli", "pulumi", "--", "--non-interactive", "up", "--yes", "--skip-preview"]
    with subprocess.Popen(
        [*command, "-s", "interrupted"], env=live.environment, stdout=subprocess.PIPE, start_new_session=True
    ) as up:
        until(lambda: set(parent.children(recursive=True)) - processes, "new workers start")
        os.killpg(up.pid, signal.SIGINT)
        up.communicate(timeout=60)
    assert up.returncode != 0
    assert pids_that_answer(url) == before
    live.pulumi("up", "--yes", "--skip-preview", "-s", "interrupted")
    live.pulumi("preview", "--expect-no-changes", "-s", "interrupted")
    assert not pids_that_answer(url) & before


def test_a_deploy_keeps_what_was_edited_by_hand_and_changes_only_the_release(live: Live) -> None:
    live.deploy(EXAMPLE.read_text(), "edited", deployment_config={"replicas": 1}, environment_vars={"A": "b"})
    edit(live, "edited", lambda model: model["deployment"].update(replicas=2))
    before = live.stack_file("edited").read_text().splitlines()
    answer = live.deploy(EXAMPLE.read_text(), "edited", deployment_config={"memory_limit": "2Gi"})
    after = live.stack_file("edited").read_text().splitlines()
    changed = {new.split(":")[0].strip() for old, new in zip(before, after, strict=True) if old != new}
    assert changed <= {"version", "run_id", "digest", "bundle"}
    assert changed >= {"version", "run_id"}
    until(lambda: len(pids_that_answer(answer["inference_url"])) == 2, "two workers answer")


def test_a_url_lasts_when_the_api_starts_again_and_when_the_parent_was_killed(own: Live) -> None:
    live = own
    url = live.deploy(EXAMPLE.read_text(), "iris", environment_vars={"TOKEN": "s3cret-value"})["inference_url"]
    live.stop()
    assert predict(url, ROW)
    for pid in live.processes(f"{live.data_dir}/models/iris"):
        os.kill(pid, signal.SIGKILL)
    live.start()

    def answers() -> bool:
        try:
            return HTTP.get(f"{url}/health").status_code == 200
        except httpx.TransportError:
            return False

    until(answers, "the model answers again", 60)
    assert predict(url, ROW)


@pytest.fixture(scope="module")
def two_versions(live: Live) -> list[dict[str, Any]]:
    """The answers to two deploys of the model `back`."""
    return [
        live.deploy(EXAMPLE.read_text(), "back", environment_vars={"TOKEN": "s3cret-value-77"}),
        live.deploy(EXAMPLE.read_text(), "back"),
    ]


@pytest.mark.usefixtures("two_versions")
def test_nothing_on_disk_holds_a_posted_environment_value_in_the_clear(live: Live) -> None:
    holders = [
        path
        for path in live.data_dir.rglob("*")
        if path.is_file() and not path.is_symlink() and b"s3cret-value-77" in path.read_bytes()
    ]
    assert holders == []
    assert b"s3cret-value-77" not in live.log.read_bytes()


def test_a_destroyed_model_loses_its_tags_and_keeps_its_versions(live: Live) -> None:
    live.deploy(EXAMPLE.read_text(), "short-lived")
    live.cli("destroy", "short-lived", "--yes")
    model = live.get("/mlops/models/short-lived")
    assert "asgard.inference_url" not in model["tags"]
    assert "asgard.deployment_id" not in model["tags"]
    assert len(model["versions"]) == 1
    assert not live.stack_file("short-lived").exists()


@pytest.mark.usefixtures("two_versions")
def test_purge_takes_the_registered_model_and_its_artifacts(live: Live) -> None:
    before = files(live.data_dir / "mlflow" / "artifacts")
    assert before
    live.deploy(EXAMPLE.read_text(), "purged")
    live.cli("destroy", "purged", "--purge", "--yes")
    assert HTTP.get(f"{live.url}/mlops/models/purged").status_code == 404
    assert files(live.data_dir / "mlflow" / "artifacts") == before


def test_rollback_serves_the_earlier_version_at_the_same_url(live: Live, two_versions: list[dict[str, Any]]) -> None:
    first, second = two_versions
    live.cli("rollback", "back")
    assert metadata(second["inference_url"])["run_id"] == first["run_id"]
    stages = {version["version"]: version["current_stage"] for version in live.get("/mlops/models/back")["versions"]}
    assert stages == {1: "Production", 2: "None"}
    live.cli("rollback", "back", "2")
    assert metadata(second["inference_url"])["run_id"] == second["run_id"]


def test_rollback_to_what_is_to_serve_brings_it_back_where_it_does_not(
    live: Live, two_versions: list[dict[str, Any]]
) -> None:
    live.cli("rollback", "back", "2")
    control.stop(live.data_dir / "models" / "back")
    live.cli("rollback", "back", "2")
    assert metadata(two_versions[1]["inference_url"])["version"] == "2"
