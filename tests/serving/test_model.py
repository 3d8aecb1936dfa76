"""What is made ready before a model is loaded, and how it is found out what it takes."""

import os
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from mlflow.models import Model, infer_signature
from mlflow.types import DataType

from asgard.serving import frames
from asgard.serving.health import check
from asgard.serving.inputs import Column
from asgard.serving.model import preload
from asgard.serving.openapi import document
from asgard.serving.problems import HealthCheckFailed
from asgard.serving.signatures import columns_of, input_schema

from .models import FRAME, PEOPLE


@pytest.mark.parametrize(("set_to", "used"), [(None, "torch"), ("jax", "jax")])
def test_a_keras_model_is_loaded_with_the_backend_it_was_saved_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_to: str | None, used: str
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", set_to or "")  # always, so that what is set here is taken back
    if set_to is None:
        monkeypatch.delenv("KERAS_BACKEND")
    (tmp_path / "model").mkdir()
    Model(flavors={"keras": {"keras_backend": "torch"}}).save(tmp_path / "model" / "MLmodel")
    preload(tmp_path)
    assert os.environ["KERAS_BACKEND"] == used


def test_columns_that_mlflow_before_2_10_calls_optional_need_not_be_there() -> None:
    specs = [SimpleNamespace(name=name, type=DataType.double, optional=name == "b") for name in "ab"]
    assert [column.required for column in columns_of(SimpleNamespace(inputs=specs))] == [True, False]


def test_openapi_tells_which_columns_mlflow_before_2_10_calls_optional() -> None:
    columns = [{"name": "a", "type": "double"}, {"name": "b", "type": "double", "optional": True}]
    info = {"name": "iris", "version": "1", "deployment_id": "iris-v1-abc", "flavor": "sklearn"}
    found = document({**info, "signature": {"inputs": columns}, "input_example": None}, {"/predict": "POST"})
    assert "'required': ['a']" in str(found)
    assert "'required': ['a', 'b']" not in str(found)


class PatsyError(Exception):
    __module__ = "patsy"


def checked(frame: pd.DataFrame, error: Exception) -> str:
    def predict(rows: object) -> object:
        raise error

    meta = Model(signature=infer_signature(frame))
    return check(meta, Path(), frames.columns(columns_of(input_schema(meta))), predict)


@pytest.mark.parametrize("error", [PatsyError("of no level"), ZeroDivisionError(), IndexError(), ValueError()])
def test_a_complaint_about_a_made_up_text_says_nothing_about_the_model(error: Exception) -> None:
    assert checked(PEOPLE, error) == "loaded"
    with pytest.raises(HealthCheckFailed, match="a row made from its signature"):
        checked(FRAME, error)


@pytest.mark.parametrize("error", [RuntimeError(), AttributeError(), ModuleNotFoundError()])
def test_a_model_that_fails_otherwise_for_a_made_up_text_is_not_served(error: Exception) -> None:
    with pytest.raises(HealthCheckFailed, match="a row made from its signature"):
        checked(PEOPLE, error)


def test_a_missing_text_is_what_it_is_in_the_frames_that_models_are_fitted_with() -> None:
    with pd.option_context("future.infer_string", True):  # as always from pandas 3 on
        fitted = pd.DataFrame({"city": ["Ulm", None], "age": [1, 2]})
        reader = frames.columns([Column("city", "string"), Column("age", "long")])
        pd.testing.assert_frame_equal(reader.read([["Ulm", 1], [None, 2]]), fitted)
        pd.testing.assert_frame_equal(reader.read([[None, 2]]), fitted[1:].reset_index(drop=True))
