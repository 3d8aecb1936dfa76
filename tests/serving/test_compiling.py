"""Compiled forms of models: they answer as the original does, byte for byte, or are not used."""

# mypy: disable-error-code="import-untyped,misc"

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import orjson
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.base import BaseEstimator
from sklearn.datasets import make_classification, make_regression
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import (
    BayesianRidge,
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDOneClassSVM,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from asgard.serving import (
    COMPILED,
    compiled,
    compiling,
    export,
    forms,
    loading,
    model,
    onnx_file,
    verification,
    walking,
)
from asgard.serving.problems import HealthCheckFailed
from asgard.serving.signatures import choose_input

from . import models
from .models import FRAME, X, Y
from .predicting import predict, predict_many

X3, Y3 = make_classification(300, 8, n_informative=6, n_classes=3, random_state=0)
XR, YR = make_regression(n_samples=200, n_features=5, random_state=0)
WHOLE = np.round(X * 10).astype(int)

MODELS: dict[str, Any] = {
    "forest": RandomForestClassifier(10, random_state=0).fit(X, Y),
    "forest of three": RandomForestClassifier(20, random_state=0).fit(X3, Y3),
    "forest that regresses": RandomForestRegressor(10, random_state=0).fit(XR, YR),
    "extra trees of texts": ExtraTreesClassifier(10, random_state=0).fit(X3, np.array(["a", "b", "c"])[Y3]),
    "tree": DecisionTreeClassifier(random_state=0).fit(X3, Y3),
    "tree that regresses": DecisionTreeRegressor(random_state=0).fit(XR, YR),
    "boosting": GradientBoostingClassifier(n_estimators=20, random_state=0).fit(X, Y),
    "boosting of three": GradientBoostingClassifier(n_estimators=5, random_state=0).fit(X3, Y3),
    "boosting that regresses": GradientBoostingRegressor(n_estimators=20, random_state=0).fit(XR, YR),
    "logistic": LogisticRegression().fit(X, np.where(Y == 1, "yes", "no")),
    "logistic of three": LogisticRegression().fit(X3, Y3),
    "stochastic": SGDClassifier(random_state=0).fit(X, Y),
    "linear": LinearRegression().fit(XR, YR),
    "stochastic that regresses": SGDRegressor(random_state=0).fit(XR, YR),
    "ridge": Ridge().fit(XR, YR),
    "ridge that classifies": RidgeClassifier().fit(X3, Y3),
    "Bayesian ridge": BayesianRidge().fit(XR, YR),
    "scaled": make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
    "found by a search": GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {}).fit(X, Y),
    "scaled forest": make_pipeline(MinMaxScaler(), RandomForestClassifier(10, random_state=0)).fit(X, Y),
}

LARGE = {"forest of three", "forest that regresses", "extra trees of texts", "tree that regresses"}
"""Those with trees of more than 64 leaves."""

ODD: tuple[Any, ...] = (
    [[1]],
    [],
    "text",
    [{"a": 1}],
    [["x", 1, 2, 3, 4]],
    [[None, 1, 2, 3, 4]],
    [[1e39, 1, 2, 3, 4]],
    [[1e300] * 5],
)


def answer(loaded: Any, data: Any) -> tuple[int, bytes]:
    found = predict(loaded, orjson.dumps({"data": data}))
    return found.status, found.body


@pytest.mark.parametrize("name", MODELS)
def test_a_compiled_model_answers_every_request_with_the_bytes_of_the_original(
    made: Callable[..., Path], name: str
) -> None:
    bundle = made(MODELS[name])
    about = compiling.write(bundle)
    assert about.get("form") == ("onnxruntime" if name in LARGE else "numpy"), about
    assert about["verified_rows"] >= 1000
    form, original = loading.load(bundle), model.load(bundle, {})
    width = about["reader"]["width"]
    rows = np.random.default_rng(7).normal(size=(500, width))
    alone = ([row] for row in rows[:100].tolist())
    for data in (rows.tolist(), *alone, np.round(rows).astype(int).tolist(), *ODD):
        assert answer(form, data) == answer(original, data)
    if form.batches:
        bodies = [orjson.dumps({"data": part}) for part in (rows[:1].tolist(), [[1]], rows[1:4].tolist())]
        together = predict_many(form, bodies)
        assert [a.body for a in together] == [predict(form, body).body for body in bodies]


@pytest.mark.parametrize(
    "signature",
    [infer_signature(FRAME, Y), infer_signature(X, Y), infer_signature(FRAME.astype("float32"), Y)],
    ids=["columns", "tensor", "floats"],
)
def test_with_a_signature_rows_and_records_are_read_as_for_the_original(
    made: Callable[..., Path], signature: Any
) -> None:
    bundle = made(MODELS["forest"], signature=signature)
    assert compiling.write(bundle)["form"] == "numpy"
    form, original = loading.load(bundle), model.load(bundle, {})
    for data in (X.tolist(), FRAME.to_dict("records"), *ODD):
        assert answer(form, data) == answer(original, data)


def test_a_model_with_column_names_and_no_signature_takes_records_too(made: Callable[..., Path]) -> None:
    bundle = made(RandomForestClassifier(10, random_state=0).fit(FRAME, Y))
    assert compiling.write(bundle)["reader"]["names"] == models.NAMES
    form, original = loading.load(bundle), model.load(bundle, {})
    for data in (X.tolist(), FRAME.to_dict("records"), [{"a": 1}], *ODD):
        assert answer(form, data) == answer(original, data)


def test_whole_numbers_are_verified_as_whole_numbers(made: Callable[..., Path]) -> None:
    frame = FRAME.assign(a=WHOLE[:, 0], b=WHOLE[:, 1])
    forest = RandomForestClassifier(10, random_state=0).fit(frame, Y)
    bundle = made(forest, signature=infer_signature(frame, Y))
    assert compiling.write(bundle)["form"] == "numpy"
    form, original = loading.load(bundle), model.load(bundle, {})
    for data in (frame.values.tolist(), frame.to_dict("records"), [[1.5, 1, 0.5, 0.5, 0.5]]):
        assert answer(form, data) == answer(original, data)


MISSING = FRAME.assign(a=WHOLE[:, 0], b=np.where(Y == 1, np.nan, FRAME["b"]), c=np.where(X[:, 2] > 0, np.nan, X[:, 2]))


@pytest.mark.parametrize("kind", [RandomForestClassifier, RandomForestRegressor])
def test_missing_numbers_beside_whole_ones_reach_the_form(made: Callable[..., Path], kind: Any) -> None:
    bundle = made(kind(10, random_state=0).fit(MISSING, Y), signature=infer_signature(MISSING.fillna(0), Y))
    about = compiling.write(bundle)
    assert (about["form"], about["nan"]) == ("numpy", True)
    form, original = loading.load(bundle), model.load(bundle, {})
    rows = json.loads(MISSING.to_json(orient="values"))
    for data in (rows, *([row] for row in rows[:40])):
        assert answer(form, data) == answer(original, data)


def test_numbers_that_the_form_does_not_take_reach_the_original_in_a_frame(made: Callable[..., Path]) -> None:
    frame = FRAME.assign(a=WHOLE[:, 0])
    bundle = made(RandomForestClassifier(10, random_state=0).fit(frame, Y), signature=infer_signature(frame, Y))
    assert compiling.write(bundle)["form"] == "numpy"
    reader = choose_input(mlflow.pyfunc.load_model(str(bundle / "model")))
    rows = frame.values.tolist()
    whole = [[int(first), *others] for first, *others in rows]
    pd.testing.assert_frame_equal(reader.wrap(np.array(rows)), reader.wrap(reader.read(whole)))


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_a_tensor_of_whole_numbers_is_verified_with_whole_numbers(made: Callable[..., Path], dtype: str) -> None:
    rows = WHOLE.astype(dtype)
    bundle = made(RandomForestClassifier(10, random_state=0).fit(rows, Y), signature=infer_signature(rows, Y))
    assert compiling.write(bundle)["form"] == "numpy"
    form, original = loading.load(bundle), model.load(bundle, {})
    for data in (rows.tolist(), rows[:1].tolist(), [[1.5, 1, 1, 1, 1]], [[2**31, 1, 1, 1, 1]]):
        assert answer(form, data) == answer(original, data)


def test_a_tensor_of_small_whole_numbers_serves_as_it_is(made: Callable[..., Path]) -> None:
    rows = WHOLE.astype("int8")
    bundle = made(RandomForestClassifier(10, random_state=0).fit(rows, Y), signature=infer_signature(rows, Y))
    assert "whole numbers of 32 or 64 bits" in compiling.write(bundle)["reason"]


def test_equal_models_are_compiled_to_equal_files(made: Callable[..., Path], tmp_path: Path) -> None:
    bundle = made(MODELS["forest"])
    compiling.write(bundle)
    first = {path.name: path.read_bytes() for path in (bundle / COMPILED).iterdir()}
    for path in (bundle / COMPILED).iterdir():
        path.unlink()
    (bundle / COMPILED).rmdir()
    compiling.write(bundle)
    assert {path.name: path.read_bytes() for path in (bundle / COMPILED).iterdir()} == first


class Contrary(RandomForestClassifier):
    """Predicts as it likes."""

    def predict(self, X: Any) -> Any:  # noqa: N803
        return 1 - super().predict(X)


class Centring(BaseEstimator):
    """Predicts a row by what comes with it."""

    n_features_in_ = 5

    def predict(self, X: Any) -> Any:  # noqa: N803
        return np.asarray(X)[:, 0] - np.mean(X)


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (Contrary(10).fit(X, Y), "no compiled form of Contrary"),
        (HistGradientBoostingClassifier(max_iter=3).fit(X, Y), "no compiled form of HistGradient"),
        (RandomForestClassifier(2).fit(X, np.c_[Y, Y]), "several outputs"),
        (SGDOneClassSVM().fit(X), "no compiled form of SGDOneClassSVM"),
    ],
)
def test_what_has_no_form_serves_as_it_is_and_metadata_says_why(
    made: Callable[..., Path], estimator: Any, reason: str
) -> None:
    bundle = made(estimator)
    assert "form" not in compiling.write(bundle)
    assert sorted(path.name for path in (bundle / COMPILED).iterdir()) == ["about.json"]
    loaded = loading.load(bundle)
    assert reason in loaded.info["compiled"]["reason"]
    assert loaded.info["compiled"]["form"] is None
    expected = mlflow.pyfunc.load_model(str(bundle / "model")).predict(X)
    assert json.loads(answer(loaded, X.tolist())[1])["predictions"] == expected.tolist()


def test_rows_are_predicted_together_only_where_that_changes_nothing(made: Callable[..., Path]) -> None:
    assert compiling.write(made(HistGradientBoostingClassifier(max_iter=3).fit(X, Y)))["batches"]


def test_a_model_whose_rows_depend_on_each_other_is_never_predicted_together(made: Callable[..., Path]) -> None:
    assert compiling.write(made(Centring()))["batches"] is False


class Large(Centring):
    """Predicts large rows by how many there are."""

    def predict(self, X: Any) -> Any:  # noqa: N803
        return np.where(np.abs(np.asarray(X)[:, 0]) > 1000, len(X), 0)


def test_rows_of_all_magnitudes_tell_whether_they_are_predicted_together(made: Callable[..., Path]) -> None:
    assert compiling.write(made(Large()))["batches"] is False


@pytest.mark.parametrize(
    "forest",
    [
        RandomForestClassifier(1, max_depth=2, random_state=0).fit(X, Y),
        RandomForestRegressor(1, random_state=0).fit(XR, YR),
    ],
    ids=["numpy", "onnxruntime"],
)
def test_a_form_that_differs_anywhere_is_found_out_and_not_used(
    made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, forest: Any
) -> None:
    real = export.export

    def off_by_one_bit(estimator: Any) -> Any:
        """The first threshold of the first tree, moved to the next float."""
        for found in real(estimator):
            tree = estimator.estimators_[0].tree_
            threshold = np.float32(tree.threshold[0])
            moved = np.nextafter(threshold, np.float32(np.inf))
            below = np.nextafter(threshold, np.float32(-np.inf)) if threshold > tree.threshold[0] else threshold
            if found.leaves is None:
                thresholds = found.arrays["below"]
                assert below in thresholds
                thresholds[thresholds == below] = moved
                yield found
            else:
                assert below.tobytes() in found.leaves
                yield replace(found, leaves=found.leaves.replace(below.tobytes(), moved.tobytes(), 1))

    monkeypatch.setattr(compiling, "export", off_by_one_bit)
    about = compiling.write(made(forest))
    assert "form" not in about
    assert "predictions differ" in about["reason"]


def test_a_row_alone_is_answered_by_arrays_where_the_walk_differs_anywhere(
    made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export.export

    def off_by_one_bit(estimator: Any) -> Any:
        """The first threshold of the first tree, where a row is walked alone, moved to the next float."""
        for found in real(estimator):
            found.arrays["nodes"][0, 1] = np.nextafter(np.float32(found.arrays["nodes"][0, 1]), np.float32(np.inf))
            yield found

    monkeypatch.setattr(compiling, "export", off_by_one_bit)
    bundle = made(RandomForestClassifier(1, max_depth=2, random_state=0).fit(X, Y))
    assert compiling.write(bundle)["single"] is False
    assert loading.load(bundle).single is None


@pytest.mark.parametrize(("trees", "depth", "walked"), [(10, None, True), (100, 8, False), (1, 16, True)])
def test_a_row_alone_is_walked_through_a_few_small_trees(
    made: Callable[..., Path], trees: int, depth: int | None, walked: bool
) -> None:
    about = compiling.write(made(RandomForestClassifier(trees, max_depth=depth, random_state=0).fit(X, Y)))
    assert about["spec"]["score"]["walked"] is walked


def test_trees_of_many_nodes_are_not_walked() -> None:
    leaves = np.full(walking.NODES + 1, -1)
    assert walking.nodes([onnx_file.Tree(leaves, leaves, leaves, leaves, leaves, leaves)]) is None


def test_a_form_that_answers_otherwise_than_when_it_was_compiled_does_not_serve(made: Callable[..., Path]) -> None:
    bundle = made(MODELS["forest"])
    compiling.write(bundle)
    path = bundle / COMPILED / "classes.npy"
    np.save(path, np.load(path)[::-1])
    with pytest.raises(HealthCheckFailed, match="when it was compiled"):
        loading.load(bundle)


def test_thresholds_after_scalers_are_verified_where_the_columns_values_are() -> None:
    pipeline = make_pipeline(StandardScaler(), MinMaxScaler(), DecisionTreeClassifier(max_depth=3)).fit(5000 + X, Y)
    [found, *_] = export.export(pipeline)
    tree = pipeline[-1].tree_
    for feature, values in found.thresholds.items():
        column = np.full((len(values), X.shape[1]), 5000.0)
        column[:, feature] = values
        expected = np.unique(tree.threshold[tree.feature == feature])
        np.testing.assert_allclose(pipeline[:-1].transform(column)[:, feature], expected, atol=1e-6)
    assert sorted(found.thresholds) == sorted(set(tree.feature[tree.feature >= 0]))


def test_thresholds_are_verified_with_their_neighbours() -> None:
    rows = verification.rows(2, {1: np.array([0.5], np.float32)}, whole=np.zeros(2, bool))
    for value in (0.5, np.nextafter(0.5, 1), np.nextafter(0.5, 0), np.nextafter(np.float32(0.5), np.float32(1))):
        assert float(value) in rows[:, 1]
    assert len(rows) >= 1000


@pytest.mark.parametrize("number", [0, -1, -999])
def test_a_number_that_the_original_takes_for_a_missing_one_is_found_out(number: float) -> None:
    rows = verification.rows(5, {}, whole=np.zeros(5, bool))

    def original(rows: Any) -> Any:
        return np.where(rows == number, 100, rows).sum(axis=1)

    with pytest.raises(verification.Different, match="predictions differ"):
        verification.compare(original, lambda rows: rows.sum(axis=1), rows, rows)


def test_a_compiled_worker_needs_neither_mlflow_nor_scikit_learn_nor_pandas() -> None:
    program = (
        "import sys; from asgard.serving import worker, template, compiled; compiled.preload({'form': 'onnxruntime'});"
        "print(sorted({'mlflow', 'sklearn', 'pandas', 'scipy'} & sys.modules.keys()))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def test_missing_and_infinite_numbers_reach_the_form_only_where_it_was_found_to_take_them() -> None:
    about = {"spec": {"score": {"input": "float32"}}, "nan": True, "infinite": False}
    limits = compiled._limits(about)
    assert [limits(np.array([[value, 1.0]])) for value in (0.5, np.nan, np.inf, 1e39)] == [True, True, False, False]
    limits = compiled._limits({**about, "nan": False})
    assert [limits(np.array([[value, 1.0]])) for value in (0.5, np.nan, np.inf)] == [True, False, False]


def test_forms_are_told_as_data(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([1.0, 2.0]))
    np.save(tmp_path / "coefficients.npy", np.array([[1.0, 1.0]]))
    np.save(tmp_path / "intercept.npy", np.array([0.5]))
    spec = {"steps": [["subtract", "a"]], "score": {"kind": "linear"}, "decide": "score"}
    assert forms.decided(tmp_path, spec, forms.scores(tmp_path, spec))(np.array([[1, 2], [3, 4]])).tolist() == [
        0.5,
        4.5,
    ]
