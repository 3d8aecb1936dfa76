"""Requests of one row each: their bodies are those of the rows among others, alone and together, or there are none."""

# mypy: disable-error-code="import-untyped"

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.models import infer_signature
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from asgard.serving import compiling, loading, single_rows, walking
from asgard.serving.loaded import LoadedModel

from . import models
from .models import FRAME, NAMES, X, Y

TEXTS = np.where(Y == 1, "yes", "no")
THREE = np.arange(len(Y)) % 3
Load = Callable[..., LoadedModel]


@pytest.fixture
def load(made: Callable[..., Path]) -> Load:
    """A fitted model of a flavour, compiled and loaded."""

    def make(estimator: Any, **arguments: Any) -> LoadedModel:
        bundle = made(estimator, **arguments)
        compiling.write(bundle)
        return loading.load(bundle)

    return make


def expected(model: LoadedModel, row: Any) -> bytes:
    return model.encode(model.predict(model.read([row])))


def answered(model: LoadedModel, data: Any) -> bytes | None:
    """Of one request; None where it is no row that is answered so."""
    assert model.single is not None
    row = model.single.read(data)
    if row is None:
        return None
    bodies = model.single.answer([row])
    assert bodies is not None
    return bodies[0]


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(10, random_state=0).fit(X, TEXTS),
        RandomForestClassifier(5, random_state=0).fit(X, THREE),
        RandomForestRegressor(7, random_state=0).fit(X, X[:, 0] * 1e-3),
        GradientBoostingClassifier(n_estimators=9, random_state=0).fit(X, Y),
        GradientBoostingClassifier(n_estimators=3, random_state=0).fit(X, THREE),
        GradientBoostingClassifier(n_estimators=99, random_state=0).fit(X, TEXTS),
        GradientBoostingRegressor(n_estimators=99, random_state=0).fit(X, X[:, 0] * 1e-3),
        models.LARGE_FOREST,
        LogisticRegression().fit(X, TEXTS),
        LogisticRegression().fit(X, THREE),
        make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
    ],
    ids=str,
)
def test_the_body_is_that_of_the_row_among_others(load: Load, estimator: Any) -> None:
    model = load(estimator)
    assert model.single is not None
    bodies = [expected(model, row) for row in X.tolist()]
    assert [answered(model, [row]) for row in X.tolist()] == bodies
    rows = [row for row in (model.single.read([row]) for row in X.tolist()) if row is not None]
    for count in (1, 2, single_rows.TOGETHER - 1, single_rows.TOGETHER, len(X)):
        assert model.single.answer(rows[:count]) == bodies[:count]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("start", [[0.0, 0.0], [0.1, -7e5]])
def test_scores_are_summed_in_the_trees_order_and_their_dtype(dtype: str, start: list[float]) -> None:
    random = np.random.default_rng(0)
    values = (random.normal(size=(40, 2)) * 10.0 ** random.integers(-6, 6, size=(40, 2))).astype(dtype)
    leaves = np.array([[-1, 0, 0, 0]] * 40, float)
    begin = np.array(start, dtype)
    for mean in (False, True):
        expected = np.add.accumulate(np.concatenate([begin[None], values]))[-1] / (40 if mean else 1)
        assert expected.dtype == dtype
        assert walking.scores(leaves, list(range(40)), values, begin, mean=mean)([]) == expected.tolist()


@pytest.mark.parametrize(
    "row",
    [
        [0.1, -0.2, 0.3, 1, 2],
        [1, 2, 3, 4, 5],
        [-0.0, 1e-300, 3e38, -3e38, 2**24 + 1],
        dict(zip(NAMES, [0.1, -0.2, 0.3, 1, 2], strict=True)),
        {"more": "than asked", **dict(zip(NAMES, X[0].tolist(), strict=True))},
    ],
    ids=repr,
)
def test_a_row_may_be_a_list_or_a_record_of_any_numbers(load: Load, row: Any) -> None:
    model = load(RandomForestClassifier(10, random_state=0).fit(FRAME, Y), signature=infer_signature(FRAME))
    assert answered(model, [row]) == expected(model, row)


@pytest.mark.parametrize(
    "data",
    [
        [],
        "text",
        None,
        {"a": [1.0], "b": [1.0], "c": [1.0], "d": [1.0], "e": [1.0]},
        [[0.1, 0.2, 0.3, 0.4, 0.5]] * 2,
        [[0.1, 0.2, 0.3, 0.4]],
        [[0.1, 0.2, 0.3, 0.4, None]],
        [[0.1, 0.2, 0.3, 0.4, True]],
        [[0.1, 0.2, 0.3, 0.4, "5"]],
        [[0.1, 0.2, 0.3, 0.4, [5.0]]],
        [[0.1, 0.2, 0.3, 0.4, 1e39]],
        [[0.1, 0.2, 0.3, 0.4, 10**400]],
        [[0.1, 0.2, 0.3, 0.4, float("nan")]],
        [[0.1, 0.2, 0.3, 0.4, float("inf")]],
        [{"a": 0.1}],
        [0.1],
    ],
    ids=repr,
)
def test_all_else_is_left_to_arrays(load: Load, data: Any) -> None:
    model = load(RandomForestClassifier(3, random_state=0).fit(FRAME, Y), signature=infer_signature(FRAME))
    assert answered(model, data) is None


def test_whole_numbers_without_a_type_are_left_to_arrays(load: Load) -> None:
    model = load(RandomForestClassifier(3, random_state=0).fit(X, Y))
    assert answered(model, [[1, 2, 3, 4, 5]]) is None


def test_columns_of_whole_numbers_are_left_to_arrays(load: Load) -> None:
    whole = FRAME.assign(a=(FRAME["a"] * 10).astype(int))
    forest = RandomForestClassifier(3, random_state=0).fit(whole, Y)
    assert load(forest, signature=infer_signature(whole)).single is None


def test_what_computes_with_doubles_takes_no_columns_of_floats(load: Load) -> None:
    floats = FRAME.astype("float32")
    assert load(LogisticRegression().fit(floats, Y), signature=infer_signature(floats)).single is None


def test_scaled_numbers_that_may_become_too_large_for_trees_are_left_to_arrays(load: Load) -> None:
    scaled = make_pipeline(MinMaxScaler(), RandomForestClassifier(4, random_state=0))
    assert load(scaled.fit(X, Y)).single is None
