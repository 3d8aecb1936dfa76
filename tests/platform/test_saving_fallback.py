"""What MLflow's default format refuses is saved in the one that was the default before."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from asgard.platform import environments
from asgard.settings import Settings

SAVE = """
import json, os, sys, traceback
import mlflow, mlflow.pyfunc, mlflow.sklearn, numpy as np
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

def save(folder, kind, *options):
    model, options = MODELS[kind].fit(X, y), dict(part.split("=") for part in options)
    mlflow.set_tracking_uri("sqlite:///" + folder + "/mlflow.db")
    if "direct" in options:
        options.pop("direct")
        mlflow.sklearn.save_model(model, folder + "/model", pip_requirements=[], **options)
        uri = folder + "/model"
    else:
        mlflow.create_experiment("here", folder + "/artifacts")
        mlflow.set_experiment("here")
        uri = mlflow.sklearn.log_model(model, name="model", input_example=X[:2], **options).model_uri
    loaded = mlflow.pyfunc.load_model(uri)
    assert loaded.predict(X).tolist() == model.predict(X).tolist()
    print(loaded.metadata.flavors["sklearn"]["serialization_format"])

for folder, case in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder + "/" + name, os.O_WRONLY | os.O_CREAT), number)
        os.chdir(folder)
        try:
            save(folder, *case)
        except Exception:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""

SAVED = {
    ("boosting",): "cloudpickle",
    ("boosting", "direct=yes"): "cloudpickle",
    ("lambda", "direct=yes"): "cloudpickle",
    ("forest", "direct=yes"): "skops",
    ("forest", "direct=yes", "serialization_format=pickle"): "pickle",
}
REFUSED = [("boosting", "serialization_format=skops"), ("boosting", "serialization_format=skops", "direct=yes")]


@pytest.fixture(scope="module")
def python(test_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with an MLflow whose default format refuses much; later ones may refuse less."""
    settings = Settings(cache_dir=test_cache / "asgard", data_dir=tmp_path_factory.mktemp("data"))
    lock = environments.resolve(
        ("mlflow==3.17.2", "scikit-learn", "pandas"), settings.data_dir / "project", settings, print
    )
    return environments.ensure(lock, settings, print).python


@pytest.fixture(scope="module")
def said(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], tuple[str, str]]:
    """By case: the standard output and error of saving it, each in a process forked from one that has imported."""
    home = tmp_path_factory.mktemp("home")
    folders = {case: tmp_path_factory.mktemp("case") for case in (*SAVED, *REFUSED)}
    environment = {"PATH": os.defpath, "HOME": str(home), "MLFLOW_DISABLE_TELEMETRY": "true"}
    cases = json.dumps({str(folder): case for case, folder in folders.items()})
    subprocess.run([python, "-c", SAVE, cases], env=environment, cwd=home, check=True)
    return {case: ((folder / "out").read_text(), (folder / "err").read_text()) for case, folder in folders.items()}


@pytest.mark.parametrize("case", SAVED)
def test_a_model_is_saved_in_the_default_format_or_else_in_the_former_one(
    said: dict[tuple[str, ...], tuple[str, str]], case: tuple[str, ...]
) -> None:
    out, error = said[case]
    assert out.split() == [SAVED[case]], error
    assert ("Saving with cloudpickle" in error) == (SAVED[case] == "cloudpickle")


@pytest.mark.parametrize("case", REFUSED)
def test_a_format_that_the_script_names_is_kept(
    said: dict[tuple[str, ...], tuple[str, str]], case: tuple[str, ...]
) -> None:
    out, error = said[case]
    assert out == ""
    assert "untrusted types" in error
