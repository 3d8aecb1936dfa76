"""The metrics of the API, read by Prometheus' own parser."""

import threading
from pathlib import Path
from typing import get_args

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from asgard.api.errors import TABLE
from asgard.errors import DeployInProgress, InfrastructureFailed, ScriptFailed
from asgard.platform.requests import DeployRequest
from asgard.progress import OnProgress, Progress, Stage
from asgard.settings import Settings

from ..waiting import until
from .fake_platform import EXAMPLE, FakeDeployed, FakePlatform, Running, post, running

Samples = dict[tuple[str, frozenset[str]], float]


def scrape(server: Running, **headers: str) -> Samples:
    """Value by name and values of labels; of buckets, without."""
    answer = httpx.get(f"{server.url}/metrics", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families)
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.values())): sample.value for sample in samples}


def value(samples: Samples, name: str, *labels: str) -> float:
    return samples.get((name, frozenset(labels)), 0)


def rose(server: Running, before: Samples, name: str, *labels: str) -> float:
    return value(scrape(server), name, *labels) - value(before, name, *labels)


def test_a_deploy_is_counted_with_the_seconds_of_each_of_its_stages(server: Running, platform: FakePlatform) -> None:
    def deploy(_: DeployRequest, on_progress: OnProgress) -> FakeDeployed:
        on_progress(Progress("training", "stage", "Running train.py"))
        on_progress(Progress("training", "log", "epoch 1"))
        threading.Event().wait(0.05)
        on_progress(Progress("infrastructure", "stage", "Bringing up the stack iris"))
        return FakeDeployed()

    platform.on_deploy = deploy
    before = scrape(server)
    assert post(server.url).status_code == 200
    assert post(server.url, headers={"Accept": "text/event-stream"}).status_code == 200
    assert rose(server, before, "asgard_deploys_total", "infrastructure", "deployed") == 2
    assert rose(server, before, "asgard_deploy_stage_seconds_count", "training") == 2
    assert rose(server, before, "asgard_deploy_stage_seconds_count", "infrastructure") == 2
    assert 0.1 <= rose(server, before, "asgard_deploy_stage_seconds_sum", "training") < 10
    assert rose(server, before, "asgard_deploy_stage_seconds_bucket", "training", "+Inf") == 2


@pytest.mark.parametrize(
    ("error", "stage", "result"),
    [
        (ScriptFailed("The script exited with code 1."), "training", "script_failed"),
        (InfrastructureFailed("The worker ended."), "infrastructure", "infrastructure_failed"),
        (DeployInProgress("iris"), None, "deploy_in_progress"),
        (RuntimeError("a defect"), "bundle", "internal_error"),
    ],
)
def test_a_deploy_that_fails_is_counted_by_where_and_how(
    server: Running, platform: FakePlatform, error: Exception, stage: Stage | None, result: str
) -> None:
    def fail(_: DeployRequest, on_progress: OnProgress) -> FakeDeployed:
        if stage:
            on_progress(Progress(stage, "stage", "It begins"))
        raise error

    platform.on_deploy = fail
    before = scrape(server)
    assert post(server.url).status_code >= 400
    assert rose(server, before, "asgard_deploys_total", stage or "none", result) == 1


def test_a_request_that_is_refused_is_no_deploy(server: Running) -> None:
    before = scrape(server)
    assert post(server.url, {**EXAMPLE, "model_name": "Not A Name"}).status_code == 422
    after = scrape(server)
    deploys = [key for key in after if key[0].startswith("asgard_deploy")]
    assert {key: after[key] for key in deploys} == {key: before[key] for key in deploys}


def test_deploys_under_way_and_in_the_queue_are_shown(server: Running, platform: FakePlatform) -> None:
    turn, may_end = threading.Event(), threading.Event()

    def deploy(_: DeployRequest, on_progress: OnProgress) -> FakeDeployed:
        on_progress(Progress("queue", "stage", "Waiting for a place"))
        turn.wait(60)
        on_progress(Progress("environment", "stage", "Resolving"))
        may_end.wait(60)
        return FakeDeployed()

    def shown() -> tuple[float, float]:
        samples = scrape(server)
        return value(samples, "asgard_deploys_in_flight"), value(samples, "asgard_deploys_queued")

    platform.on_deploy = deploy
    posts = [threading.Thread(target=post, args=(server.url,)) for _ in range(2)]
    try:
        for thread in posts:
            thread.start()
        until(lambda: shown() == (2, 2))
        turn.set()
        until(lambda: shown() == (2, 0))
    finally:
        turn.set()
        may_end.set()
        for thread in posts:
            thread.join()
    assert shown() == (0, 0)


def test_the_process_and_the_version_are_told(server: Running) -> None:
    samples = scrape(server)
    assert value(samples, "process_resident_memory_bytes") > 0
    assert [sample for name, sample in samples if name == "asgard_info"]


def test_no_label_is_anything_but_a_stage_or_a_code(server: Running, platform: FakePlatform) -> None:
    """However many models there are, there are no more series."""
    for name in ("a", "b", "c"):
        assert post(server.url, {**EXAMPLE, "model_name": name}).status_code == 200
    known = {*get_args(Stage), "none", "deployed", *(found.code for found in TABLE.values())}
    seen = {label for name, labels in scrape(server) if name == "asgard_deploys_total" for label in labels}
    assert seen
    assert seen <= known


def test_metrics_need_the_token_where_there_is_one(tmp_path: Path, platform: FakePlatform) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "api_token": "right"})
    with running(settings, platform) as guarded:
        assert httpx.get(f"{guarded.url}/metrics").status_code == 401
        assert scrape(guarded, Authorization="Bearer right")
