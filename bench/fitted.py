"""The models that `serving.py` compares servers with: the libraries of each, and how it is fitted and saved."""

import json
import subprocess
from pathlib import Path
from typing import Any

from peers import Rows, environment

LIBRARIES = ("scikit-learn==1.7.2", "numpy<2.4", "joblib", "xgboost", "lightgbm")
PYTORCH_LIBRARIES = ("scikit-learn==1.7.2", "numpy<2", "joblib", "torch==1.12.1")
"""PyTorch's last release whose wheels bring no packages of CUDA; they are for Python 3.10 at most."""
PYTORCH_MLFLOW = {"mlflow-skinny": ("mlflow-skinny<3.9",), "mlflow": ("mlflow<3.9", "starlette<1")}
"""MLflow that saves models of that PyTorch, and what its server takes."""

FIT = """
import sys, joblib, mlflow.sklearn, numpy
from lightgbm import LGBMClassifier
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from xgboost import XGBClassifier
X, y = make_classification(n_samples=1000, n_features=5, random_state=42)
model = {
    "forest": RandomForestClassifier(n_estimators=10, random_state=42),
    "logistic": LogisticRegression(),
    "xgboost": XGBClassifier(n_estimators=100, n_jobs=1),
    "boosting100": GradientBoostingClassifier(random_state=42),
    "histogram": HistGradientBoostingClassifier(random_state=42),
    "lightgbm": LGBMClassifier(n_jobs=1, verbose=-1),
}[sys.argv[1]].fit(X, y)
joblib.dump(model, sys.argv[2] + "/model.joblib")
flavor = {"xgboost": "xgboost", "lightgbm": "lightgbm"}.get(sys.argv[1])
if flavor is None:
    mlflow.sklearn.save_model(model, sys.argv[2] + "/mlflow", serialization_format="cloudpickle", pip_requirements=[])
else:
    module = __import__(f"mlflow.{flavor}", fromlist=["save_model"])
    options = {"serialization_format": "cloudpickle"} if flavor == "lightgbm" else {}
    module.save_model(model, sys.argv[2] + "/mlflow", pip_requirements=[], **options)
rows = numpy.random.default_rng(0).normal(size=(1000, 5))
print(__import__("json").dumps({"rows": rows.tolist(), "expected": model.predict(rows).tolist()}))
"""

NET = """
import numpy, torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        sizes = (5, 64, 64, 2)
        layers = [torch.nn.Linear(*pair) for pair in zip(sizes, sizes[1:])]
        self.layers = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    def forward(self, rows):
        return self.layers(rows).argmax(dim=1)
    def predict(self, rows):
        with torch.no_grad():
            return self(torch.as_tensor(numpy.asarray(rows, dtype="float32"))).numpy()
"""

FIT_PYTORCH = """
import json, sys, joblib, mlflow.pytorch, numpy, torch
from mlflow.models import infer_signature
from net import Net
torch.manual_seed(42)
model = Net().eval()
rows = numpy.random.default_rng(0).normal(size=(1000, 5)).astype("float32")
joblib.dump(model, sys.argv[2] + "/model.joblib")
mlflow.pytorch.save_model(
    model, sys.argv[2] + "/mlflow", signature=infer_signature(rows, model.predict(rows)), pip_requirements=[]
)
print(json.dumps({"rows": rows.tolist(), "expected": model.predict(rows).tolist()}))
"""


def needs(model: str, server: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The version of Python for a model and a server, and what the two need there."""
    if model != "pytorch":
        return "3.11", (*LIBRARIES, *server)
    return "3.10", (*PYTORCH_LIBRARIES, *server, *(more for one in server for more in PYTORCH_MLFLOW.get(one, ())))


def fit(python: Path, name: str, folder: Path) -> tuple[Rows, list[Any]]:
    """Fit and save a model; rows, and what it predicts for them."""
    folder.mkdir()
    program = FIT
    if name == "pytorch":
        program = FIT_PYTORCH
        (folder / "net.py").write_text(NET)
    done = subprocess.run(
        [python, "-c", program, name, folder],
        check=True,
        capture_output=True,
        env={**environment(python.parent), "PYTHONPATH": str(folder)},
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return found["rows"], found["expected"]
