"""What MLflow's default format refuses is saved in the one that was the default before."""

import os
import subprocess
from pathlib import Path

import pytest

from asgard.platform import environments
from asgard.settings import Settings

SAVE = """
import sys
import mlflow, numpy as np
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

X = np.random.default_rng(0).normal(size=(40, 3))
y = X[:, 0] > 0
MODELS = {
    "forest": RandomForestClassifier(n_estimators=3),
    "boosting": GradientBoostingClassifier(n_estimators=3),
    "lambda": make_pipeline(FunctionTransformer(lambda rows: rows * 2), RandomForestClassifier(n_estimators=3)),
}
model, options = MODELS[sys.argv[1]].fit(X, y), dict(part.split("=") for part in sys.argv[3:])
mlflow.set_tracking_uri("sqlite:///" + sys.argv[2] + "/mlflow.db")
if "direct" in options:
    options.pop("direct")
    mlflow.sklearn.save_model(model, sys.argv[2] + "/model", pip_requirements=[], **options)
    uri = sys.argv[2] + "/model"
else:
    mlflow.create_experiment("here", sys.argv[2] + "/artifacts")
    mlflow.set_experiment("here")
    uri = mlflow.sklearn.log_model(model, name="model", input_example=X[:2], **options).model_uri
loaded = mlflow.pyfunc.load_model(uri)
assert loaded.predict(X).tolist() == model.predict(X).tolist()
print(loaded.metadata.flavors["sklearn"]["serialization_format"])
"""


@pytest.fixture(scope="module")
def python(test_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with an MLflow whose default format refuses much; later ones may refuse less."""
    settings = Settings(cache_dir=test_cache / "asgard", data_dir=tmp_path_factory.mktemp("data"))
    lock = environments.resolve(
        ("mlflow==3.17.2", "scikit-learn", "pandas"), settings.data_dir / "project", settings, print
    )
    return environments.ensure(lock, settings, print).python


def save(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, "HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"}
    kind, *options = arguments
    return subprocess.run(
        [python, "-c", SAVE, kind, folder, *options], env=environment, cwd=folder, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("arguments", "saved_as"),
    [
        (["boosting"], "cloudpickle"),
        (["boosting", "direct=yes"], "cloudpickle"),
        (["lambda", "direct=yes"], "cloudpickle"),
        (["forest", "direct=yes"], "skops"),
        (["forest", "direct=yes", "serialization_format=pickle"], "pickle"),
    ],
)
def test_a_model_is_saved_in_the_default_format_or_else_in_the_former_one(
    python: Path, tmp_path: Path, arguments: list[str], saved_as: str
) -> None:
    done = save(python, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [saved_as]
    assert ("Saving with cloudpickle" in done.stderr) == (saved_as == "cloudpickle")


@pytest.mark.parametrize("options", [[], ["direct=yes"]])
def test_a_format_that_the_script_names_is_kept(python: Path, tmp_path: Path, options: list[str]) -> None:
    done = save(python, tmp_path, "boosting", "serialization_format=skops", *options)
    assert done.returncode == 1
    assert "untrusted types" in done.stderr
