"""The four endpoints, and what is beside them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from asgard.errors import DeployInProgress, InfrastructureFailed, ScriptFailed, TooManyDeploys, TrackingUnavailable
from asgard.platform.requests import DeploymentChanges, DeployRequest
from asgard.platform.status import PlatformStatus
from asgard.progress import OnProgress
from asgard.settings import Settings

from ..waiting import until
from .fake_platform import EXAMPLE, FakeDeployed, FakePlatform, Running, post, running


def test_a_deploy_answers_with_exactly_the_fields_of_the_contract(server: Running) -> None:
    answer = post(server.url)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "deployment_id": "iris-v1-abc123",
        "model_name": "iris",
        "model_version": "1",
        "run_id": "abc123def",
        "status": "deployed",
        "inference_url": "http://127.0.0.1:20123",
        "endpoints": {
            "predict": "http://127.0.0.1:20123/predict",
            "health": "http://127.0.0.1:20123/health",
            "metadata": "http://127.0.0.1:20123/metadata",
        },
        "namespace": "asgard",
        "image_uri": "file:///bundles/iris/0123",
        "deployment_time_seconds": 1.25,
        "created_at": "2026-01-15T10:30:00Z",
    }


def test_a_deploy_asks_the_platform_for_what_was_posted(server: Running, platform: FakePlatform) -> None:
    given = {
        "environment_vars": {"A": "1"},
        "deployment_config": {"replicas": 3, "cpu_limit": "500m"},
        "tags": {"b": "2"},
    }
    assert post(server.url, EXAMPLE | given).status_code == 200
    assert platform.requests == [
        DeployRequest(
            script=b"print(1)\n",
            script_name="train.py",
            experiment_name="iris experiment",
            model_name="iris",
            requirements=("mlflow", "scikit-learn==1.3.0"),
            environment_vars={"A": "1"},
            deployment_config=DeploymentChanges(replicas=3, memory_limit=None, cpu_limit="500m"),
            tags={"b": "2"},
        )
    ]


@pytest.mark.parametrize(
    "optional",
    [
        {},
        {"environment_vars": None, "deployment_config": None, "tags": None},
        {"deployment_config": {}},
        {"deployment_config": {"replicas": None, "memory_limit": None, "cpu_limit": None}},
    ],
)
def test_a_field_that_is_absent_or_null_changes_nothing(
    server: Running, platform: FakePlatform, optional: dict[str, object]
) -> None:
    assert post(server.url, EXAMPLE | optional).status_code == 200
    (asked,) = platform.requests
    assert (asked.environment_vars, asked.tags, asked.deployment_config) == (None, None, DeploymentChanges())


def test_an_empty_object_of_variables_is_not_an_absent_one(server: Running, platform: FakePlatform) -> None:
    assert post(server.url, EXAMPLE | {"environment_vars": {}}).status_code == 200
    assert platform.requests[0].environment_vars == {}


def test_the_models_have_exactly_the_fields_of_the_contract(server: Running) -> None:
    answer = httpx.get(f"{server.url}/mlops/models")
    assert answer.status_code == 200
    assert answer.json()[0] == {
        "name": "iris",
        "description": "",
        "creation_timestamp": "2026-01-15T12:00:00Z",
        "last_updated_timestamp": "2026-01-15T12:30:00.005000Z",
        "latest_version": 1,
        "tags": {"team": "a"},
    }


def test_a_model_has_its_versions_beside_the_same_fields(server: Running) -> None:
    listed = httpx.get(f"{server.url}/mlops/models").json()[0]
    answer = httpx.get(f"{server.url}/mlops/models/iris").json()
    versions = answer.pop("versions")
    assert answer == listed | {"latest_version": 2}
    assert versions[0] == {
        "version": 2,
        "run_id": "abc123def",
        "status": "READY",
        "creation_timestamp": "2026-01-15T12:00:00Z",
        "current_stage": "Production",
        "description": "",
    }
    assert versions[1]["version"] == 1


@pytest.mark.parametrize("name", ["team/models/élan 50%", "?#&"])
def test_a_model_is_found_whatever_characters_its_name_holds(server: Running, name: str) -> None:
    assert httpx.get(f"{server.url}/mlops/models/{quote(name, safe='')}").json()["name"] == name
    assert httpx.get(f"{server.url}/mlops/models/{quote(name)}").json()["name"] == name


@pytest.mark.parametrize("name", ["other", "iris/", "iris/versions", "%00", "%FF", ""])
def test_an_unknown_model_is_not_found(server: Running, name: str) -> None:
    answer = httpx.get(f"{server.url}/mlops/models/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


def test_the_status_has_exactly_the_fields_of_the_contract(server: Running) -> None:
    assert httpx.get(f"{server.url}/mlops/status").json() == {
        "mlflow_status": "healthy",
        "mlflow_uri": "http://127.0.0.1:5000",
        "feast_status": "starting",
        "feast_repo_path": "/data/feast",
        "deployment_service_status": "unhealthy",
        "deployment_service_ready": False,
        "timestamp": "2026-01-15T12:00:00Z",
    }


@pytest.mark.parametrize(
    "path", ["/mlops", "/mlops/", "/mlops/jobs", "/mlops/deploy/", "/mlops/deploy/1", "/mlops/status/x"]
)
def test_nothing_else_is_under_mlops(server: Running, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        answer = httpx.request(method, server.url + path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert answer.headers["content-type"] == "application/problem+json"


def test_another_method_is_told_which_one_there_is(server: Running) -> None:
    answer = httpx.get(f"{server.url}/mlops/deploy")
    assert (answer.status_code, answer.json()["code"], answer.headers["allow"]) == (405, "method_not_allowed", "POST")


@pytest.mark.parametrize("path", ["/", "/health"])
def test_a_load_balancer_may_ask_without_wanting_a_body(server: Running, path: str) -> None:
    answer, got = httpx.head(f"{server.url}{path}"), httpx.get(f"{server.url}{path}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(got.content))


def test_the_root_links_to_addresses_that_answer(server: Running) -> None:
    links = httpx.get(f"{server.url}/").json()["links"]
    assert httpx.get(server.url + links.pop("deploy")).status_code == 405
    assert {httpx.get(server.url + link).status_code for link in links.values()} == {200}


def test_the_platform_starts_and_stops_with_the_server(tmp_path: Path) -> None:
    platform = FakePlatform()
    with running(Settings(data_dir=tmp_path, api_token=None), platform):
        assert platform.calls == ["start"]
    assert platform.calls == ["start", "stop"]


def test_short_requests_are_answered_while_more_deploys_run_than_the_pool_has_threads(
    platform: FakePlatform, server: Running
) -> None:
    release = threading.Event()

    def hold(_: DeployRequest, __: OnProgress) -> FakeDeployed:
        release.wait()
        return FakeDeployed()

    platform.on_deploy = hold
    with ThreadPoolExecutor(60) as pool:
        answers = [pool.submit(post, server.url) for _ in range(60)]
        try:
            until(lambda: len(platform.requests) == 60)
            for path in ("/mlops/models", "/mlops/models/iris", "/mlops/status", "/health"):
                assert httpx.get(server.url + path).status_code == 200
        finally:
            release.set()
        assert {answer.result().status_code for answer in answers} == {200}


def test_the_status_is_answered_while_every_thread_waits_for_mlflow(platform: FakePlatform, server: Running) -> None:
    release, waiting = threading.Event(), threading.Semaphore(0)

    def hold() -> None:
        waiting.release()
        release.wait()

    platform.on_models = hold
    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(httpx.get, f"{server.url}/mlops/models", timeout=60) for _ in range(50)]
        try:
            assert all(waiting.acquire(timeout=60) for _ in range(40))  # the pool's threads
            assert httpx.get(f"{server.url}/mlops/status").status_code == 200
            assert httpx.get(f"{server.url}/health").status_code == 200
        finally:
            release.set()
        assert {answer.result().status_code for answer in answers} == {200}


def test_a_failed_script_is_told_with_stage_log_and_run(platform: FakePlatform, server: Running) -> None:
    def fail(_: DeployRequest, __: OnProgress) -> FakeDeployed:
        raise ScriptFailed("The script exited with code 3.", log_tail=["line 1", "caf\udce9"], run_id="abc")

    platform.on_deploy = fail
    answer = post(server.url)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:asgard:error:script_failed",
        "title": "The script failed",
        "status": 422,
        "detail": "The script exited with code 3.",
        "code": "script_failed",
        "stage": "training",
        "log_tail": ["line 1", "caf\udce9"],
        "run_id": "abc",
    }


def test_failed_infrastructure_is_told_with_reason_and_undo(platform: FakePlatform, server: Running) -> None:
    def fail(_: DeployRequest, __: OnProgress) -> FakeDeployed:
        error = InfrastructureFailed("It died.", reason="OOMKilled")
        error.undo = "incomplete"
        raise error

    platform.on_deploy = fail
    answer = post(server.url)
    told = answer.json()
    assert (answer.status_code, told["stage"], told["reason"], told["undo"]) == (
        502,
        "infrastructure",
        "OOMKilled",
        "incomplete",
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [(DeployInProgress("iris"), 409), (TooManyDeploys("Full."), 429), (TrackingUnavailable("Starting."), 503)],
)
def test_what_passes_by_itself_says_when_to_try_again(
    platform: FakePlatform, server: Running, error: DeployInProgress, status: int
) -> None:
    def fail(_: DeployRequest, __: OnProgress) -> FakeDeployed:
        raise error

    platform.on_deploy = fail
    answer = post(server.url)
    assert answer.status_code == status
    assert int(answer.headers["retry-after"]) == answer.json()["retry_after"] == error.retry_after


@pytest.mark.parametrize("defect", [RuntimeError("hunter2"), SystemExit("hunter2")])
def test_a_defect_is_told_by_a_reference_that_is_in_the_log(
    platform: FakePlatform, server: Running, caplog: pytest.LogCaptureFixture, defect: BaseException
) -> None:
    def fail(_: DeployRequest, __: OnProgress) -> FakeDeployed:
        raise defect

    platform.on_deploy = fail
    answer = post(server.url)
    told = answer.json()
    assert (answer.status_code, told["code"]) == (500, "internal_error")
    assert told["reference"] == answer.headers["x-request-id"]
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text
    (logged,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert told["reference"] in str(logged.msg)
    assert "hunter2" in str(logged.msg)


def test_a_defect_of_a_short_request_is_told_the_same_way(platform: FakePlatform, server: Running) -> None:
    def fail() -> PlatformStatus:
        raise RuntimeError("hunter2")

    platform.on_status = fail
    answer = httpx.get(f"{server.url}/mlops/status")
    assert (answer.status_code, answer.json()["reference"]) == (500, answer.headers["x-request-id"])
    assert "hunter2" not in answer.text
