"""A bundle's model: loaded by MLflow, its input and output chosen once, checked before it serves."""

import importlib
import json
import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models import utils as mlflow_utils
from mlflow.pyfunc import PyFuncModel

from . import inputs, outputs, timing
from .health import check
from .inputs import Reader
from .loaded import Cost, LoadedModel, Predict
from .metadata import describe, flavor, of_model
from .problems import InvalidInput
from .signatures import choose_input, columns_of, features, input_schema, is_matrix, is_required, made_data

log = logging.getLogger(__name__)

MODULES = {
    "sklearn": ("sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline", "sklearn.compose", "skops.io"),
    "xgboost": ("xgboost", "sklearn.base"),
    "lightgbm": ("lightgbm", "sklearn.base"),
    "catboost": ("catboost",),
    "pytorch": ("torch",),
    "statsmodels": ("statsmodels.api",),
    "onnx": ("onnxruntime",),
}
"""What loading a model of a flavour imports, so that it is there before a worker is forked.

Models of these flavours are plain functions of their input: what MLflow tracks around a predict is for others.
"""


EXAMPLE_ROWS = 2
"""Of an input example that are shown."""

QUICK_SECONDS = 0.005
"""A model that predicts a row in less may do so in the event loop, where /health waits for it."""


def preload(bundle: Path) -> None:
    """Import what loading the bundle's model will import. What fails here is left for `load` to report."""
    try:
        flavors = Model.load(str(bundle / "model")).flavors
    except Exception:
        log.debug("cannot read the model yet", exc_info=True)
        return
    if backend := flavors.get("keras", {}).get("keras_backend"):
        os.environ.setdefault("KERAS_BACKEND", backend)  # as keras reads it when it is imported
    names = [flavors.get("python_function", {}).get("loader_module", "")]
    for name in flavors:
        names.extend(MODULES.get(name, ()))
    for name in filter(None, names):
        try:
            importlib.import_module(name)
        except Exception:
            log.debug("cannot import %s yet", name, exc_info=True)


def load(bundle: Path, found: Mapping[str, Any]) -> LoadedModel:
    """Load and check the model of a bundle. `found`: what was found out about it when it was compiled.

    Raises HealthCheckFailed, or whatever loading raised.
    """
    path = bundle / "model"
    # Then MLflow reads texts as the dates and bytes that a model's type hints ask for, as in its own server.
    os.environ["_MLFLOW_IS_IN_SERVING_ENVIRONMENT"] = "true"
    # Its warnings are of packages that differ, which the environment's lock rules out; to look takes half a second.
    model = mlflow.pyfunc.load_model(str(path), suppress_warnings=True)
    reader = choose_input(model)
    checked = check(model.metadata, path, reader, model.predict)
    inner = choose_predict(model, reader)

    def predict(rows: Any) -> Any:
        return inner(reader.wrap(rows))

    batches = bool(found.get("batches"))
    measured = _cost(model, reader, predict)
    quick = (
        flavor(model.metadata) in MODULES
        and measured is not None
        and measured.one < QUICK_SECONDS
        and (not batches or measured.each * timing.TOGETHER < 2 * QUICK_SECONDS)
    )
    return LoadedModel(
        read=reader.read,
        predict=predict,
        encode=outputs.encode,
        explain=partial(_explain, model),
        info=describe(
            of_model(model.metadata, checked, example(model, path, reader)),
            json.loads((bundle / "bundle.json").read_text()),
            {"form": None, "reason": found.get("reason", "Compiling is off.")},
        ),
        original=lambda: model,
        quick=predict if quick else None,
        batches=batches,
        cost=measured,
    )


def made_rows(model: PyFuncModel, reader: Reader) -> Any:
    """One row of zeros for a model that tells what it takes; None for others."""
    schema = input_schema(model.metadata)
    width = features(model)[1] if schema is None and model.metadata.signature is None else None
    data = made_data(schema) if schema is not None else None if width is None else [[0.0] * width]
    if data is None:
        return None
    try:
        return reader.read(data)
    except InvalidInput:
        return None


def example(model: PyFuncModel, path: Path, reader: Reader) -> Any:
    """The input example's first rows as `data` of a request, else rows made up; None where neither fits."""
    try:
        if model.metadata.saved_input_example_info is None:
            schema = input_schema(model.metadata)
            data = None if schema is None else made_data(schema)
        else:
            saved = model.metadata.load_input_example(str(path))
            some = saved if saved is None or isinstance(saved, dict) else saved[:EXAMPLE_ROWS]
            data = json.loads(outputs.encode(some))["predictions"]
        reader.read(data)
    except Exception:
        log.debug("there is no example of an input", exc_info=True)
        return None
    return data


def _cost(model: PyFuncModel, reader: Reader, predict: Predict) -> Cost | None:
    rows = made_rows(model, reader)
    return None if rows is None else timing.cost(predict, rows)


def choose_predict(model: PyFuncModel, reader: Reader) -> Predict:
    """MLflow's predict, or what it calls once it has compared the input with the signature.

    That comparison takes most of the time of a small model, and `reader` gives nothing that could fail it. It is left
    out only where it changes nothing about a converted row.
    """
    schema = input_schema(model.metadata)
    inner: Predict | None = getattr(model, "_predict_fn", None)
    if inner is None or flavor(model.metadata) not in MODULES:
        return model.predict
    if model.metadata.signature is None:  # nothing is compared
        return inner
    if schema is None or getattr(model.metadata.signature, "params", None) or not all(map(is_required, schema.inputs)):
        return model.predict
    data = made_data(schema)
    if data is None:
        return model.predict
    try:
        row = reader.wrap(reader.read(data))
        same = _same(row, mlflow_utils._enforce_schema(row, schema))
    except Exception:  # a private function of MLflow, so of another shape in another version
        log.debug("the check of inputs stays", exc_info=True)
        return model.predict
    return inner if same else model.predict


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, pd.DataFrame):
        return one.columns.equals(other.columns) and list(one.dtypes) == list(other.dtypes) and one.equals(other)
    return bool(one.dtype == other.dtype and one.shape == other.shape and (one == other).all())


def _explain(model: PyFuncModel, error: Exception, data: Any) -> InvalidInput | None:
    if isinstance(error, MlflowException) and error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
        return InvalidInput(str(error.message).splitlines()[0][:500], location="/data")
    schema = input_schema(model.metadata)
    columns = None if schema is None or schema.is_tensor_spec() else columns_of(schema)
    if columns is not None and isinstance(error, ValueError | TypeError | KeyError):
        missing = inputs.left_out(data, columns)
        if missing is not None:
            return missing
    of_none = isinstance(error, AttributeError) and error.obj is None  # as from a text that is missing
    if not (of_none or isinstance(error, ValueError | TypeError)):
        return None
    if model.metadata.signature is None:
        names, width = features(model)
        numbers = None if names is None else [inputs.Column(name, "double") for name in names]
        return None if width is None else inputs.odd_width(data, width) or inputs.odd_cell(data, numbers)
    if columns is None and not (schema is not None and is_matrix(schema)):
        return None
    return inputs.odd_cell(data, columns)
