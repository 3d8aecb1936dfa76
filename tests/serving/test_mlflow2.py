"""A model that MLflow 2 logged, served beside the libraries of its time."""

import json
import subprocess
from pathlib import Path

import httpx

from asgard.serving import SERVER_REQUIREMENTS

from .conftest import environment
from .models import X, make_bundle
from .parents import Parents

REQUIREMENTS = ("mlflow-skinny==2.22.0", "numpy<2", "pandas<2.3", "scikit-learn==1.5.2", "cloudpickle<4")

SAVE = """
import sys, mlflow.pyfunc, mlflow.sklearn
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
X, y = make_classification(n_samples=100, n_features=5, random_state=42)
model = RandomForestClassifier(n_estimators=10, random_state=42).fit(X, y)
mlflow.sklearn.save_model(model, sys.argv[1], pip_requirements=[], input_example=X[:2])
print(mlflow.pyfunc.load_model(sys.argv[1]).predict(X).tolist())
"""


def test_a_model_of_mlflow_2_is_checked_and_served(test_cache: Path, tmp_path: Path) -> None:
    python = environment(test_cache, (*REQUIREMENTS, *SERVER_REQUIREMENTS))
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
