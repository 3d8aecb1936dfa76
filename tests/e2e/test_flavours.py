"""Each flavour: trained by a posted script, deployed, and equal to `mlflow.pyfunc` on the same rows."""

import json

import pytest

from .live import HTTP, Live

DATA = """
import mlflow
import numpy as np
import pandas as pd
X = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 4)), columns=list("abcd"))
y = (X["a"] + X["b"] > 0).astype(int)
"""

FLAVOURS = {
    "sklearn": (
        ["mlflow", "scikit-learn", "pandas"],
        """
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
columns = ColumnTransformer([("scaled", StandardScaler(), ["a", "b"])], remainder="passthrough")
with mlflow.start_run():
    model = make_pipeline(columns, GradientBoostingClassifier(n_estimators=5)).fit(X, y)
    mlflow.sklearn.log_model(model, name="model", input_example=X.head(2))
""",
    ),
    "xgboost": (
        ["mlflow", "xgboost-cpu", "scikit-learn", "pandas"],
        """
import xgboost
with mlflow.start_run():
    model = xgboost.XGBClassifier(n_estimators=5).fit(X, y)
    mlflow.xgboost.log_model(model, "model", input_example=X.head(2))
""",
    ),
    "lightgbm": (
        ["mlflow", "lightgbm", "scikit-learn", "pandas"],
        """
import lightgbm
with mlflow.start_run():
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(X, y)
    mlflow.lightgbm.log_model(model, name="model", input_example=X.head(2))
""",
    ),
    "statsmodels": (
        ["mlflow", "statsmodels", "pandas"],
        """
import statsmodels.api as sm
with mlflow.start_run():
    mlflow.statsmodels.log_model(sm.OLS(X["a"] + 2 * X["b"], X).fit(), name="model", input_example=X.head(2))
""",
    ),
    # The newest release with one wheel for all; later ones want gigabytes of CUDA from the package index.
    "pytorch": (
        ["mlflow", "torch==1.12.1"],
        """
import torch
torch.manual_seed(0)
with mlflow.start_run():
    mlflow.pytorch.log_model(torch.nn.Linear(4, 1), "model", input_example=X.head(2))
""",
    ),
    "pyfunc": (
        ["mlflow-skinny", "pandas"],
        """
class Sum(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return pd.DataFrame({"sum": model_input.sum(axis=1), "positive": model_input.sum(axis=1) > 0})
with mlflow.start_run():
    mlflow.pyfunc.log_model("model", python_model=Sum(), input_example=X.head(2))
""",
    ),
}

RECORDS = [{"a": 0.5, "b": -1.0, "c": 0.0, "d": 2.0}, {"a": -3.0, "b": 1.5, "c": 1.0, "d": 0.0}]

REFERENCE = f"""
import json
run_id = mlflow.last_active_run().info.run_id
predictions = mlflow.pyfunc.load_model(f"runs:/{{run_id}}/model").predict(pd.DataFrame({RECORDS}))
if isinstance(predictions, pd.DataFrame) and len(predictions.columns) == 1:
    predictions = predictions.iloc[:, 0]
expected = predictions.to_dict("records") if isinstance(predictions, pd.DataFrame) else pd.Series(predictions).tolist()
mlflow.MlflowClient().log_dict(run_id, {{"expected": expected}}, "expected.json")
"""
"""At the end of a script: what `mlflow.pyfunc` says to the rows that the server is asked."""


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_answers_equal_those_of_mlflow_pyfunc(live: Live, flavour: str) -> None:
    requirements, script = FLAVOURS[flavour]
    name = f"flavour-{flavour}"
    answer = live.deploy(DATA + script + REFERENCE, name, requirements=requirements)
    url = answer["inference_url"]
    [written] = (live.data_dir / "mlflow" / "artifacts").glob(f"*/{answer['run_id']}/artifacts/expected.json")
    expected = json.loads(written.read_text())["expected"]
    by_records = HTTP.post(f"{url}/predict", json={"data": RECORDS}, timeout=60).json()["predictions"]
    by_rows = HTTP.post(f"{url}/predict", json={"data": [list(row.values()) for row in RECORDS]}, timeout=60)
    expected = [pytest.approx(value, rel=1e-6) for value in expected]
    assert by_records == expected
    assert by_rows.json()["predictions"] == expected
    metadata = HTTP.get(f"{url}/metadata").json()
    assert metadata["health_check"] == "input_example"
