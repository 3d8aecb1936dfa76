"""Compiled forms of XGBoost's models: by objective, and as its own `predict` uses the trees."""

# mypy: disable-error-code="import-untyped"

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import mlflow.xgboost
import numpy as np
import pytest
import xgboost
from sklearn.datasets import make_classification
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from asgard.serving import compiling, loading

from . import models
from .predicting import predictions

X, Y = make_classification(300, 5, random_state=0)
X3, Y3 = make_classification(300, 8, n_informative=6, n_classes=3, random_state=0)
COUNTS = np.random.default_rng(0).poisson(np.exp(X[:, 0] / 2)).astype(float)
ROWS = np.random.default_rng(7).normal(size=(500, 8))
SMALL: dict[str, Any] = {"n_estimators": 8, "max_depth": 3, "n_jobs": 1}


def booster(rows: Any, labels: Any, **parameters: Any) -> Any:
    return xgboost.train({"max_depth": 3, "nthread": 1, **parameters}, xgboost.DMatrix(rows, labels), 8)


def stopped_early(kind: Any) -> Any:
    """A model with more trees than those up to its best round."""
    model = kind(n_estimators=60, max_depth=6, learning_rate=1.0, early_stopping_rounds=20, n_jobs=1)
    model.fit(X[:150], Y[:150], eval_set=[(X[150:], 1 - Y[150:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    return model


MODELS: dict[str, Callable[[], Any]] = {
    "classifier": lambda: xgboost.XGBClassifier(**SMALL).fit(X, Y),
    "classifier of three": lambda: xgboost.XGBClassifier(**SMALL).fit(X3, Y3),
    "classifier that stopped early": lambda: stopped_early(xgboost.XGBClassifier),
    "classifier, random forest": lambda: xgboost.XGBRFClassifier(**SMALL).fit(X, Y),
    "regressor": lambda: xgboost.XGBRegressor(**SMALL).fit(X, COUNTS),
    "regressor that stopped early": lambda: stopped_early(xgboost.XGBRegressor),
    "regressor, random forest": lambda: xgboost.XGBRFRegressor(**SMALL).fit(X, COUNTS),
    "regressor of two": lambda: xgboost.XGBRegressor(**SMALL).fit(X, np.c_[COUNTS, Y]),
    "regressor of absolute errors": lambda: xgboost.XGBRegressor(objective="reg:absoluteerror", **SMALL).fit(X, COUNTS),
    "regressor of counts": lambda: xgboost.XGBRegressor(objective="count:poisson", **SMALL).fit(X, COUNTS),
    "regressor of sizes": lambda: xgboost.XGBRegressor(objective="reg:gamma", **SMALL).fit(X, COUNTS + 1),
    "ranker": lambda: xgboost.XGBRanker(**SMALL).fit(X, Y, qid=np.arange(300) // 10),
    "booster": lambda: booster(X, COUNTS),
    "booster of a probability": lambda: booster(X, Y, objective="binary:logistic"),
    "booster of a share": lambda: booster(X, Y * 0.5, objective="reg:logistic"),
    "booster of probabilities": lambda: booster(X3, Y3, objective="multi:softprob", num_class=3),
    "booster of classes": lambda: booster(X3, Y3, objective="multi:softmax", num_class=3),
}


@pytest.fixture
def made_by_its_flavor(tmp_path: Path) -> Callable[[Any], Path]:
    """As `made`, saved by XGBoost's flavour, which takes a Booster too."""

    def make(model: Any) -> Path:
        mlflow.xgboost.save_model(model, str(tmp_path / "saved"), pip_requirements=[])
        return models.make_bundle(tmp_path / "saved", tmp_path / "bundle")

    return make


@pytest.mark.parametrize("name", MODELS)
def test_a_compiled_model_predicts_what_the_original_does(made_by_its_flavor: Callable[[Any], Path], name: str) -> None:
    bundle = made_by_its_flavor(MODELS[name]())
    about = compiling.write(bundle)
    assert about.get("form") == "numpy", about
    rows = ROWS[:, : about["reader"]["width"]]
    expected = mlflow.pyfunc.load_model(str(bundle / "model")).predict(rows)
    form = loading.load(bundle)
    alone = [prediction for row in rows[:50].tolist() for prediction in predictions(form, [row])]
    for found in (predictions(form, rows.tolist()), alone):
        np.testing.assert_allclose(found, expected[: len(found)], rtol=4e-6)


def test_the_last_step_of_a_pipeline_may_be_one(made: Callable[..., Path]) -> None:
    pipeline = make_pipeline(StandardScaler(), xgboost.XGBClassifier(**SMALL)).fit(X, Y)
    bundle = made(pipeline)
    assert compiling.write(bundle)["form"] == "numpy"
    assert predictions(loading.load(bundle), ROWS[:, :5].tolist()) == pipeline.predict(ROWS[:, :5]).tolist()


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"booster": "gblinear"}, "XGBoost's gblinear"),
        ({"objective": "survival:cox"}, "Booster with the objective survival:cox"),
    ],
)
def test_what_has_no_form_says_why(
    made_by_its_flavor: Callable[[Any], Path], parameters: dict[str, str], reason: str
) -> None:
    about = compiling.write(made_by_its_flavor(booster(X, Y, **parameters)))
    assert "form" not in about
    assert reason in about["reason"]


def test_a_model_that_takes_a_number_for_a_missing_value_serves_as_it_is(made: Callable[..., Path]) -> None:
    about = compiling.write(made(xgboost.XGBClassifier(missing=0.0, **SMALL).fit(X, Y)))
    assert "form" not in about
    assert "another missing value than NaN" in about["reason"]


@pytest.mark.parametrize("rows", [models.FRAME, models.X], ids=["with names", "without names"])
@pytest.mark.parametrize("data", [[{**dict.fromkeys("bcde", 1.0), "a": None}], [dict.fromkeys("abcde")]])
def test_a_record_with_a_missing_number_is_predicted_as_a_list_with_it_also_without_a_form(
    made_by_its_flavor: Callable[[Any], Path], rows: Any, data: list[dict[str, float | None]]
) -> None:
    served = loading.load(made_by_its_flavor(xgboost.XGBClassifier(**SMALL).fit(rows, models.Y)))
    records = [{name: data[0][name] for name in models.NAMES}]
    assert predictions(served, records) == predictions(served, [list(records[0].values())])
