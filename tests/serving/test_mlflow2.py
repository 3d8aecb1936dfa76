"""A model that MLflow 2 logged, served beside the libraries of its time."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from asgard.serving import SERVER_REQUIREMENTS

from .conftest import environment
from .http_server import mlflow_serves
from .models import X, make_bundle
from .parents import Model, Parents

BESIDE = ("numpy<2", "pandas<2.3", "scikit-learn==1.5.2", "cloudpickle<4")

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


class Served(NamedTuple):
    """A model of an older MLflow. `expected`: what it says itself to `SAVE`'s rows; `model`: where it serves."""

    python: Path
    saved: Path
    expected: list[int]
    model: Model


@contextmanager
def serving(test_cache: Path, folder: Path, requirements: tuple[str, ...]) -> Iterator[Served]:
    python = of_its_time(test_cache, requirements)
    saved = folder / "saved"
    expected = json.loads(subprocess.check_output([python, "-c", SAVE, saved]))
    bundle = make_bundle(saved, folder / "bundle")
    with Parents(folder / "models", python, lambda *_: bundle) as parents:
        model = parents.model()
        model.apply()
        yield Served(python, saved, expected, model)


@pytest.fixture(scope="module")
def newest(test_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """By MLflow 2.22, whose server is FastAPI's."""
    requirements = ("mlflow-skinny==2.22.0", *BESIDE, "fastapi<0.116")
    with serving(test_cache, tmp_path_factory.mktemp("newest"), requirements) as served:
        yield served


@pytest.fixture(scope="module")
def flask(test_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """By MLflow 2.9, whose server is Flask's."""
    requirements = ("mlflow==2.9.2", *BESIDE, "setuptools<81")
    with serving(test_cache, tmp_path_factory.mktemp("flask"), requirements) as served:
        yield served


def test_a_model_of_mlflow_2_is_checked_and_served(newest: Served) -> None:
    url = newest.model.url
    metadata = httpx.get(f"{url}/metadata").json()
    assert (metadata["health_check"], metadata["libraries"]["mlflow-skinny"]) == ("input_example", "2.22.0")
    answer = httpx.post(f"{url}/predict", json={"data": X.tolist()}, timeout=60)
    assert answer.json() == {"predictions": newest.expected}
    assert httpx.post(f"{url}/predict", json={"data": [[1, 2]]}).status_code == 422


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


@pytest.mark.parametrize("version", ["flask", "newest"])
def test_invocations_are_answered_with_the_bytes_of_mlflow_2s_server(
    request: pytest.FixtureRequest, version: str
) -> None:
    def ask(url: str) -> list[tuple[int, str, bytes]]:
        answers = [httpx.get(url + path, timeout=60) for path in ("/ping", "/version")]
        for content_type, body in INVOCATIONS:
            headers = {} if content_type is None else {"content-type": content_type}
            answers.append(httpx.post(f"{url}/invocations", content=body, headers=headers, timeout=60))
        return [(answer.status_code, answer.headers["content-type"], answer.content) for answer in answers]

    served: Served = request.getfixturevalue(version)
    answers = ask(served.model.url)
    with mlflow_serves(served.python, served.saved) as theirs:
        assert answers == ask(theirs)
    assert {status for status, _, _ in answers} == {200, 400, 415, 500}


def test_where_mlflow_2_comes_without_its_server_invocations_are_501(test_cache: Path, tmp_path: Path) -> None:
    requirements = ("mlflow-skinny==2.9.2", *BESIDE, "setuptools<81")
    with serving(test_cache, tmp_path, requirements) as served:
        url = served.model.url
        answer = httpx.post(f"{url}/invocations", json={"inputs": X[:1].tolist()}, timeout=60)
        assert (answer.status_code, answer.json()["code"]) == (501, "no_scoring_server")
        assert httpx.post(f"{url}/predict", json={"data": X[:1].tolist()}, timeout=60).status_code == 200
        assert httpx.get(f"{url}/version").content == b"2.9.2"
