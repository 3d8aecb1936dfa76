"""Whatever fails, what served keeps serving, nothing is left over, and the answer says what to do."""

import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from ..waiting import until
from .live import EXAMPLE, HTTP, Live, body, files, predict

ROW = [[0.1, -0.2, 0.3, 0.4, -0.5]]

BROKEN_AT_LOAD = """
import os
import mlflow
class Model(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        raise RuntimeError("this version does not load")
    def predict(self, context, model_input, params=None):
        return [0] * len(model_input)
with mlflow.start_run():
    mlflow.pyfunc.log_model("model", python_model=Model())
"""

READS_FROM_THE_DEPLOYS_FOLDER = """
from pathlib import Path
import mlflow
FILE = Path("{place}").expanduser().absolute() / "weights.txt"
FILE.write_text("1")
class Model(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.weight = int(FILE.read_text())
    def predict(self, context, model_input, params=None):
        return [self.weight] * len(model_input)
with mlflow.start_run():
    mlflow.pyfunc.log_model("model", python_model=Model())
"""


@pytest.fixture
def served(live: Live) -> Iterator[dict[str, Any]]:
    answer = live.deploy(EXAMPLE.read_text(), "steady")
    yield answer
    assert predict(answer["inference_url"], ROW)
    assert live.get("/mlops/models/steady")["tags"]["asgard.deployment_id"] == answer["deployment_id"]


def leftovers(live: Live) -> set[str]:
    return {name for folder in ("models", "bundles", "deploys", "stacks") for name in files(live.data_dir / folder)}


@pytest.mark.parametrize(
    ("script", "code", "tail"),
    [
        ("import nothing_like_this\n", "script_failed", "nothing_like_this"),
        ("\n\nraise ValueError('on line three')\n", "script_failed", "line 3"),
        ("x = (\n", "script_failed", "line 1"),
        ("import sys\nprint('bye')\nsys.exit(3)\n", "script_failed", "bye"),
        ("print('no model here')\n", "no_model_logged", "no model here"),
    ],
)
def test_a_script_that_fails_is_422_with_its_last_lines_and_leaves_nothing(
    live: Live, script: str, code: str, tail: str
) -> None:
    before = leftovers(live)
    response = live.post(body(script, "never"))
    problem = response.json()
    assert response.status_code == 422, problem
    assert problem["code"] == code
    assert tail in "\n".join(problem["log_tail"])
    assert leftovers(live) == before
    assert HTTP.get(f"{live.url}/mlops/models/never").status_code == 404


def test_an_experiment_whose_artifacts_mlflow_does_not_proxy_is_refused_before_training(live: Live) -> None:
    client = MlflowClient(live.status()["mlflow_uri"])
    elsewhere = client.create_experiment("elsewhere", artifact_location="s3://somebody/elses")
    response = live.post(body(EXAMPLE.read_text(), "never", experiment_name="elsewhere"))
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "experiment_name")
    assert not client.search_runs([elsewhere])


def test_a_version_that_does_not_load_leaves_the_former_one_serving(live: Live, served: dict[str, Any]) -> None:
    before, stack_file = leftovers(live), live.stack_file("steady").read_text()
    exported = live.pulumi("stack", "output", "--json", "-s", "steady").stdout
    response = live.post(body(BROKEN_AT_LOAD, "steady"))
    problem = response.json()
    assert response.status_code == 502, problem
    assert problem["stage"] == "infrastructure"
    assert problem["undo"] == "complete"
    assert "this version does not load" in "\n".join(problem["log_tail"])
    assert live.stack_file("steady").read_text() == stack_file
    assert live.pulumi("stack", "output", "--json", "-s", "steady").stdout == exported
    assert leftovers(live) == before
    versions = live.get("/mlops/models/steady")["versions"]
    assert versions[0]["version"] == versions[-1]["version"] + len(versions) - 1
    assert versions[0]["current_stage"] == "None"


def test_a_first_version_that_does_not_load_leaves_no_stack(live: Live) -> None:
    before = leftovers(live)
    response = live.post(body(BROKEN_AT_LOAD, "stillborn"))
    assert response.status_code == 502
    assert leftovers(live) == before
    assert "stillborn" not in live.pulumi("stack", "ls", "--json").stdout
    (version,) = live.get("/mlops/models/stillborn")["versions"]
    assert version["current_stage"] == "None"


@pytest.mark.parametrize("place", [".", "~"])
def test_a_model_that_reads_what_goes_with_the_deploy_is_refused_before_it_serves(live: Live, place: str) -> None:
    before = leftovers(live)
    response = live.post(body(READS_FROM_THE_DEPLOYS_FOLDER.format(place=place), "leaning"))
    assert response.status_code == 502, response.json()
    assert "weights.txt" in response.json()["detail"]
    assert "`artifacts`" in response.json()["detail"]
    assert leftovers(live) == before


def test_requirements_that_do_not_fit_together_are_named(live: Live) -> None:
    request = body(EXAMPLE.read_text(), "never", requirements=["mlflow", "pandas==2.2.2", "numpy==1.22.0"])
    response = live.post(request)
    assert response.status_code == 422
    problem = response.json()
    assert problem["code"] == "requirements_conflict"
    assert "pandas" in problem["detail"]
    assert "numpy" in problem["detail"]


@pytest.fixture(scope="module")
def mortal(make_live: Callable[..., Live]) -> Live:
    """An API that tests kill and start again."""
    live = make_live()
    live.ready()
    return live


@pytest.fixture(scope="module")
def mortal_url(mortal: Live) -> str:
    """Of the model `iris`, which serves there."""
    return str(mortal.deploy(EXAMPLE.read_text(), "iris")["inference_url"])


@pytest.mark.parametrize("stage", ["environment", "training", "registration", "bundle", "infrastructure"])
def test_after_kill_9_at_any_stage_the_old_version_answers_and_the_next_deploy_succeeds(
    mortal: Live, mortal_url: str, stage: str
) -> None:
    live, url = mortal, mortal_url
    script = "import time\nprint('started')\ntime.sleep(1)\n" + EXAMPLE.read_text()
    with (
        httpx.Client(timeout=900) as client,
        client.stream(
            "POST",
            f"{live.url}/mlops/deploy",
            json=body(script, "iris"),
            headers={"Accept": "text/event-stream"},
        ) as response,
    ):
        for line in response.iter_lines():
            if line.startswith("data: ") and f'"stage":"{stage}"' in line.replace(" ", ""):
                live.kill()
                break
    assert predict(url, ROW)
    live.start()
    live.ready()
    until(lambda: files(live.data_dir / "deploys") == set(), "what the dead deploy left is undone", 60)
    assert live.processes(f"{live.data_dir}/deploys") == []
    assert predict(url, ROW)
    answer = live.deploy(EXAMPLE.read_text(), "iris")
    assert answer["inference_url"] == url
    assert predict(url, ROW)
    live.pulumi("preview", "--expect-no-changes", "-s", "iris")


def test_a_client_that_goes_away_changes_nothing(live: Live) -> None:
    with pytest.raises(httpx.ReadTimeout):
        HTTP.post(
            f"{live.url}/mlops/deploy",
            json=body("import time\ntime.sleep(2)\n" + EXAMPLE.read_text(), "impatient"),
            timeout=httpx.Timeout(5, read=0.5),
        )

    def deployed() -> bool:
        response = HTTP.get(f"{live.url}/mlops/models/impatient")
        return response.status_code == 200 and "asgard.inference_url" in response.json()["tags"]

    until(deployed, "the deploy is finished", 600)


def test_a_second_deploy_of_the_same_model_is_409(live: Live) -> None:
    with (
        httpx.Client(timeout=900) as client,
        client.stream(
            "POST",
            f"{live.url}/mlops/deploy",
            json=body("import time\nprint('busy')\ntime.sleep(3)\n" + EXAMPLE.read_text(), "contended"),
            headers={"Accept": "text/event-stream"},
        ) as first,
    ):
        lines = first.iter_lines()
        next(line for line in lines if "busy" in line)
        second = live.post(body(EXAMPLE.read_text(), "contended"))
        assert second.status_code == 409
        assert int(second.headers["retry-after"]) > 0
        assert any("inference_url" in line for line in lines)


def test_ten_models_deployed_at_once_all_succeed(live: Live) -> None:
    from concurrent.futures import ThreadPoolExecutor

    models = [f"crowd-{number}" for number in range(10)]
    with ThreadPoolExecutor(10) as pool:
        deploy = partial(live.deploy, EXAMPLE.read_text(), experiment_name="a new one for all of them")
        answers = list(pool.map(deploy, models))
    assert len({answer["inference_url"] for answer in answers}) == 10
    for answer in answers:
        assert predict(answer["inference_url"], ROW)


def test_a_sigterm_while_a_deploy_runs_lets_it_finish(mortal: Live) -> None:
    live = mortal
    with (
        httpx.Client(timeout=900) as client,
        client.stream(
            "POST",
            f"{live.url}/mlops/deploy",
            json=body("import time\nprint('busy')\ntime.sleep(2)\n" + EXAMPLE.read_text(), "iris"),
            headers={"Accept": "text/event-stream"},
        ) as response,
    ):
        lines = response.iter_lines()
        next(line for line in lines if "busy" in line)
        assert live.process is not None
        live.process.send_signal(signal.SIGTERM)
        assert any("inference_url" in line for line in lines)
    live.process.wait(60)
