"""Every honest shape of script ends in a model that answers, and in MLflow as its author meant it."""

from typing import Any

import pytest

from .live import EXAMPLE, HTTP, Live, body, predict

HEAD = """
import mlflow
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
X, y = make_classification(n_samples=100, n_features=5, random_state=42)
def fitted(c=1.0):
    return LogisticRegression(C=c).fit(X, y)
"""

SHAPES = {
    "several runs, the last that finished counts": """
for c in (0.1, 1.0, 10.0):
    with mlflow.start_run(run_name=f"c-{c}"):
        mlflow.log_param("c", c)
        mlflow.sklearn.log_model(fitted(c), name="model")
with mlflow.start_run(run_name="evaluation"):
    mlflow.log_metric("auc", 0.9)
""",
    "autolog": """
mlflow.autolog()
fitted()
""",
    "an experiment of its own": """
mlflow.set_experiment("my own experiment")
with mlflow.start_run():
    mlflow.sklearn.log_model(fitted(), "model")
""",
    "registers under the model's name itself": """
with mlflow.start_run():
    mlflow.sklearn.log_model(fitted(), name="model", registered_model_name="shape")
""",
    "registers under another name": """
with mlflow.start_run():
    mlflow.sklearn.log_model(fitted(), name="model", registered_model_name="someone-elses")
""",
    "no run at all": """
mlflow.sklearn.log_model(fitted(), name="model")
""",
    "a main guard, arguments, a relative file, a subprocess and a pool": """
import subprocess, sys
from multiprocessing import get_context
def square(x):
    return x * x
if __name__ == "__main__":
    assert sys.argv == ["train.py"], sys.argv
    open("notes.txt", "w").write("kept")
    assert subprocess.run([sys.executable, "-c", "print(open('notes.txt').read())"],
                          capture_output=True, text=True, check=True).stdout == "kept\\n"
    for method in ("fork", "spawn"):
        with get_context(method).Pool(2) as pool:
            assert pool.map(square, [1, 2, 3]) == [1, 4, 9]
    with mlflow.start_run():
        mlflow.log_artifact("notes.txt")
        mlflow.sklearn.log_model(fitted(), artifact_path="model")
""",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_script_of_this_shape_is_deployed(live: Live, shape: str) -> None:
    answer = live.deploy(HEAD + SHAPES[shape], "shape")
    assert predict(answer["inference_url"], [[0, 0, 0, 0, 0]])
    versions = live.get("/mlops/models/shape")["versions"]
    assert str(versions[0]["version"]) == answer["model_version"]
    assert len(versions) == int(answer["model_version"])
    assert versions[0]["run_id"] == answer["run_id"]


def mlflow_run(live: Live, run_id: str) -> dict[str, Any]:
    uri = live.status()["mlflow_uri"]
    answer = HTTP.get(f"{uri}/api/2.0/mlflow/runs/get", params={"run_id": run_id}).raise_for_status().json()
    run: dict[str, Any] = answer["run"]
    return run


def test_what_reproduces_a_run_is_in_mlflow(live: Live) -> None:
    answer = live.deploy(EXAMPLE.read_text(), "recorded", tags={"team": "research"})
    run = mlflow_run(live, answer["run_id"])
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert tags["team"] == "research"
    assert tags["asgard.deployment_id"] == answer["deployment_id"]
    assert {"key": "n_estimators", "value": "10"} in run["data"]["params"]
    assert [metric["key"] for metric in run["data"]["metrics"]] == ["accuracy"]
    uri = live.status()["mlflow_uri"]
    listed = HTTP.get(f"{uri}/api/2.0/mlflow/artifacts/list", params={"run_id": answer["run_id"], "path": "asgard"})
    assert {file["path"] for file in listed.json()["files"]} == {
        "asgard/train.py",
        "asgard/uv.lock",
        "asgard/output.log",
    }


def test_a_failed_script_leaves_its_run_failed_with_its_log(live: Live) -> None:
    script = (
        HEAD + "with mlflow.start_run():\n    mlflow.log_param('a', 1)\n    print('so far')\n    raise SystemExit(3)\n"
    )
    response = HTTP.post(
        f"{live.url}/mlops/deploy", json=body(script, "failing", environment_vars={"A": "b"}), timeout=900
    )
    problem = response.json()
    assert response.status_code == 422, problem
    run = mlflow_run(live, problem["run_id"])
    assert run["info"]["status"] == "FAILED"
    assert {"key": "a", "value": "1"} in run["data"]["params"]
    assert "so far" in "\n".join(problem["log_tail"])


def test_a_failed_script_leaves_no_version_that_it_registered(live: Live) -> None:
    script = (
        HEAD
        + "with mlflow.start_run():\n"
        + "    mlflow.sklearn.log_model(fitted(), name='model', registered_model_name='half-done')\n"
        + "raise RuntimeError('after all')\n"
    )
    assert HTTP.post(f"{live.url}/mlops/deploy", json=body(script, "half-done"), timeout=900).status_code == 422
    assert HTTP.get(f"{live.url}/mlops/models/half-done").status_code == 404


def test_environment_vars_reach_script_and_server(live: Live) -> None:
    script = """
import os
import mlflow
assert os.environ["GREETING"] == "hello"
assert not [name for name in os.environ if name.startswith(("AWS_", "PULUMI_"))]
class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [os.environ["GREETING"]] * len(model_input)
with mlflow.start_run():
    mlflow.pyfunc.log_model("model", python_model=Echo())
"""
    answer = live.deploy(script, "greeting", environment_vars={"GREETING": "hello"})
    assert predict(answer["inference_url"], [[1]]) == ["hello"]
