"""A model that MLflow 2 logged, served beside the libraries of its time."""

import json
import subprocess
from pathlib import Path

import httpx
import pytest

from asgard.serving import SERVER_REQUIREMENTS

from .conftest import environment
from .http_server import mlflow_serves
from .models import X, make_bundle
from .parents import Parents

BESIDE = ("numpy<2", "pandas<2.3", "scikit-learn==1.5.2", "cloudpickle<4")
REQUIREMENTS = ("mlflow-skinny==2.22.0", *BESIDE)

SAVE = """
import sys, mlflow.pyfunc, mlflow.sklearn
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
X, y = make_classification(n_samples=100, n_features=5, random_state=42)
model = RandomForestClassifier(n_estimators=10, random_state=42).fit(X, y)
mlflow.sklearn.save_model(model, sys.argv[1], pip_requirements=[], input_example=X[:2])
print(mlflow.pyfunc.load_model(sys.argv[1]).predict(X).tolist())
"""


def of_its_time(test_cache: Path, requirements: tuple[str, ...]) -> Path:
    """NumPy 1 has no wheels for Python 3.13."""
    return environment(test_cache, (*requirements, *SERVER_REQUIREMENTS), python_below=(3, 13))


def test_a_model_of_mlflow_2_is_checked_and_served(test_cache: Path, tmp_path: Path) -> None:
    python = of_its_time(test_cache, REQUIREMENTS)
    saved = tmp_path / "saved"
    expected = json.loads(subprocess.check_output([python, "-c", SAVE, saved]))
    bundle = make_bundle(saved, tmp_path / "bundle")
    with Parents(tmp_path / "models", python, lambda *_: bundle) as parents:
        model = parents.model()
        model.apply()
        metadata = httpx.get(f"{model.url}/metadata").json()
        assert (metadata["health_check"], metadata["libraries"]["mlflow-skinny"]) == ("input_example", "2.22.0")
        answer = httpx.post(f"{model.url}/predict", json={"data": X.tolist()}, timeout=60)
        assert answer.json() == {"predictions": expected}
        assert httpx.post(f"{model.url}/predict", json={"data": [[1, 2]]}).status_code == 422


INVOCATIONS = (
    ("application/json", json.dumps({"inputs": X[:3].tolist()}).encode()),
    ("application/json; charset=utf-8", json.dumps({"instances": X[:3].tolist()}).encode()),
    ("application/json", b'{"inputs": [[1, 2]]}'),
    ("application/json", b"{"),
    ("application/json", b"\xff"),
    ("application/json; charset=latin-1", b"{}"),
    ("text/csv", b"a,b,c,d,e\n1,2,3,4,5\n"),
    ("text/csv", b"a\n1\n"),
    ("text/plain", b"a"),
    (None, b"{}"),
)


@pytest.mark.parametrize(
    "mlflow",
    [("mlflow==2.9.2", *BESIDE, "setuptools<81"), ("mlflow-skinny==2.22.0", *BESIDE, "fastapi<0.116")],
    ids=["Flask", "FastAPI"],
)
def test_invocations_are_answered_with_the_bytes_of_mlflow_2s_server(
    test_cache: Path, tmp_path: Path, mlflow: tuple[str, ...]
) -> None:
    python = of_its_time(test_cache, mlflow)
    saved = tmp_path / "saved"
    subprocess.check_output([python, "-c", SAVE, saved])
    bundle = make_bundle(saved, tmp_path / "bundle")
    with Parents(tmp_path / "models", python, lambda *_: bundle) as parents, mlflow_serves(python, saved) as theirs:
        model = parents.model()
        model.apply()

        def ask(url: str) -> list[tuple[int, str, bytes]]:
            answers = [httpx.get(url + path, timeout=60) for path in ("/ping", "/version")]
            for content_type, body in INVOCATIONS:
                headers = {} if content_type is None else {"content-type": content_type}
                answers.append(httpx.post(f"{url}/invocations", content=body, headers=headers, timeout=60))
            return [(answer.status_code, answer.headers["content-type"], answer.content) for answer in answers]

        answers = ask(model.url)
        assert answers == ask(theirs)
        assert {status for status, _, _ in answers} == {200, 400, 415, 500}


def test_where_mlflow_2_comes_without_its_server_invocations_are_501(test_cache: Path, tmp_path: Path) -> None:
    python = of_its_time(test_cache, ("mlflow-skinny==2.9.2", *BESIDE, "setuptools<81"))
    saved = tmp_path / "saved"
    subprocess.check_output([python, "-c", SAVE, saved])
    bundle = make_bundle(saved, tmp_path / "bundle")
    with Parents(tmp_path / "models", python, lambda *_: bundle) as parents:
        model = parents.model()
        model.apply()
        answer = httpx.post(f"{model.url}/invocations", json={"inputs": X[:1].tolist()}, timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (501, "no_scoring_server")
        assert httpx.post(f"{model.url}/predict", json={"data": X[:1].tolist()}, timeout=60).status_code == 200
        assert httpx.get(f"{model.url}/version").content == b"2.9.2"
