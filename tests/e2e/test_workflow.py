"""The specification's workflow, call by call, against the live server."""

from datetime import datetime

import pytest

from .live import EXAMPLE, HTTP, Live, body, events, predict


def is_timestamp(text: str) -> bool:
    return text.endswith("Z") and datetime.fromisoformat(text).tzinfo is not None


def test_a_posted_script_becomes_a_url_that_predicts(live: Live) -> None:
    answer = live.deploy(
        EXAMPLE.read_text(),
        "workflow",
        environment_vars={"GREETING": "hello"},
        deployment_config={"replicas": 1, "memory_limit": "2Gi", "cpu_limit": "1000m"},
        tags={"team": "research"},
    )
    url = answer["inference_url"]
    assert answer == {
        "deployment_id": f"workflow-v1-{answer['run_id'][:6]}",
        "model_name": "workflow",
        "model_version": "1",
        "run_id": answer["run_id"],
        "status": "deployed",
        "inference_url": url,
        "endpoints": {"predict": f"{url}/predict", "health": f"{url}/health", "metadata": f"{url}/metadata"},
        "namespace": "asgard",
        "image_uri": answer["image_uri"],
        "deployment_time_seconds": answer["deployment_time_seconds"],
        "created_at": answer["created_at"],
    }
    assert answer["image_uri"].startswith("file://")
    assert 0 < answer["deployment_time_seconds"] < 900
    assert is_timestamp(answer["created_at"])

    assert HTTP.get(f"{url}/health").status_code == 200
    predictions = predict(url, [[0.1, -0.2, 0.3, 0.4, -0.5], [1, 2, 3, 4, 5]])
    assert len(predictions) == 2
    assert set(predictions) <= {0, 1}
    metadata = HTTP.get(f"{url}/metadata").json()
    assert metadata["version"] in (1, "1")
    assert metadata["run_id"] == answer["run_id"]

    models = {model["name"]: model for model in live.get("/mlops/models")}
    model = models["workflow"]
    assert set(model) == {
        "name",
        "description",
        "creation_timestamp",
        "last_updated_timestamp",
        "latest_version",
        "tags",
    }
    assert model["latest_version"] == 1
    assert model["description"] == ""
    assert model["tags"]["team"] == "research"
    assert model["tags"]["asgard.inference_url"] == url
    assert model["tags"]["asgard.deployment_id"] == answer["deployment_id"]
    assert is_timestamp(model["creation_timestamp"])

    detail = live.get("/mlops/models/workflow")
    versions = detail.pop("versions")
    assert detail == model
    (version,) = versions
    assert set(version) == {"version", "run_id", "status", "creation_timestamp", "current_stage", "description"}
    assert version["version"] == 1
    assert version["run_id"] == answer["run_id"]
    assert version["current_stage"] == "Production"

    status = live.get("/mlops/status")
    assert set(status) == {
        "mlflow_status",
        "mlflow_uri",
        "feast_status",
        "feast_repo_path",
        "deployment_service_status",
        "deployment_service_ready",
        "timestamp",
    }
    assert status["mlflow_status"] == "healthy"
    assert status["deployment_service_ready"] is True
    assert is_timestamp(status["timestamp"])


def test_a_second_version_answers_at_the_same_url(live: Live) -> None:
    first = live.deploy(EXAMPLE.read_text(), "twice")
    second = live.deploy(EXAMPLE.read_text().replace("n_estimators=10", "n_estimators=5"), "twice")
    assert (first["model_version"], second["model_version"]) == ("1", "2")
    assert second["inference_url"] == first["inference_url"]
    assert HTTP.get(f"{second['inference_url']}/metadata").json()["run_id"] == second["run_id"]


def test_progress_is_streamed_with_the_scripts_output_and_ends_with_the_answer(live: Live) -> None:
    script = "print('hello from the script')\n" + EXAMPLE.read_text()
    response = HTTP.post(
        f"{live.url}/mlops/deploy",
        json=body(script, "streamed"),
        headers={"Accept": "text/event-stream"},
        timeout=900,
    )
    found = events(response.text)
    stages = [data["stage"] for name, data in found if name == "stage"]
    assert stages == ["environment", "training", "registration", "bundle", "infrastructure"]
    lines = [data["line"] for name, data in found if name == "log"]
    assert "hello from the script" in lines
    name, answer = found[-1]
    assert name == "result"
    assert answer["status"] == "deployed"
    assert any(line.startswith(f"{answer['inference_url']} answers after ") for line in lines)
    assert predict(answer["inference_url"], [[0, 0, 0, 0, 0]])


@pytest.mark.parametrize("path", ["/mlops/deployments", "/mlops/jobs", "/mlops/train", "/mlops/deploy/x", "/mlops"])
def test_there_is_nothing_else_under_mlops(live: Live, path: str) -> None:
    assert HTTP.get(f"{live.url}{path}").status_code == 404


def test_an_unknown_model_is_404(live: Live) -> None:
    response = HTTP.get(f"{live.url}/mlops/models/never-seen")
    assert response.status_code == 404
    assert response.json()["code"] == "model_not_found"
