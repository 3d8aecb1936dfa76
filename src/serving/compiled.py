"""Serves a model by its compiled form, without MLflow and the model's own libraries.

The original is loaded when it is first needed: for rows of which the form was not found to answer as the original does.
"""

import json
import math
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from . import COMPILED, forms, inputs, single_rows, timing
from .arrays import encode
from .inputs import Column, Convert
from .loaded import LoadedModel, NotQuick
from .metadata import describe
from .problems import HealthCheckFailed, InvalidInput


def preload(found: Mapping[str, Any]) -> None:
    """Import what the form needs, so that it is there before a worker is forked."""
    if found["form"] == "onnxruntime":
        import onnxruntime  # noqa: F401


def load(bundle: Path, found: Mapping[str, Any]) -> LoadedModel:
    """Load the form, and predict the rows that were kept for that. Raises HealthCheckFailed."""
    # What is too large for a float32 becomes infinite, and is then not for the form: nothing to warn of.
    np.seterr(over="ignore")
    folder, spec = bundle / COMPILED, found["spec"]
    score = forms.scores(folder, spec)
    form = forms.decided(folder, spec, score)
    read = reader(found["reader"])
    _check(form, read, found["check"])
    limits = _limits(found)

    def quick(rows: Any) -> Any:
        if not isinstance(rows, np.ndarray) or not limits(rows):
            raise NotQuick
        return form(rows)

    original = _Original(bundle, found)

    def predict(rows: Any) -> Any:
        try:
            return quick(rows)
        except NotQuick:
            return original.predict(rows)

    return LoadedModel(
        read=read,
        predict=predict,
        encode=original.encode,
        explain=original.explain,
        info=describe(
            found["model"],
            json.loads((bundle / "bundle.json").read_text()),
            {"form": found["form"], "verified_rows": found["verified_rows"]},
        ),
        original=original.pyfunc,
        quick=quick,
        single=single_rows.load(folder, spec, found["reader"], score) if found["single"] else None,
        batches=bool(found["batches"]),
        cost=timing.cost(form, read(found["check"]["data"][:1])),
    )


def reader(spec: Mapping[str, Any]) -> Convert:
    """How `data` becomes rows, as it does for the original; `data` itself where it is not rows of numbers.

    {"kind": "columns", "names", "kinds"}, {"kind": "tensor", "dtype", "shape"} or {"kind": "untyped", "names", "width"}
    """
    if spec["kind"] == "columns":
        return inputs.numbers([Column(*column) for column in zip(spec["names"], spec["kinds"], strict=True)])
    if spec["kind"] == "tensor":
        return inputs.tensor(np.dtype(spec["dtype"]), spec["shape"])
    return inputs.untyped_numbers(spec["names"], spec["width"])


class _Original:
    """The model itself, loaded when it is first asked, in the thread that asks."""

    def __init__(self, bundle: Path, found: Mapping[str, Any]) -> None:
        self._bundle = bundle
        self._found = found
        self._lock = threading.Lock()

    @cached_property
    def _loaded(self) -> LoadedModel:
        from . import model

        return model.load(self._bundle, self._found)

    def _load(self) -> LoadedModel:
        with self._lock:
            return self._loaded

    def pyfunc(self) -> Any:
        return self._load().original()

    def predict(self, rows: Any) -> Any:
        loaded = self._load()
        return loaded.predict(rows if isinstance(rows, np.ndarray) else loaded.read(rows))

    def encode(self, prediction: Any) -> bytes:
        if isinstance(prediction, np.ndarray):
            return encode(prediction)
        return self._loaded.encode(prediction)

    def explain(self, error: Exception, data: Any) -> InvalidInput | None:
        return self._loaded.explain(error, data)


def _limits(found: Mapping[str, Any]) -> Callable[[np.ndarray], bool]:
    """Whether the form was found to answer as the original for such rows."""
    dtype = np.dtype(found["spec"]["score"].get("input", "float64"))
    nan, infinite = found["nan"], found["infinite"]

    def limits(rows: np.ndarray) -> bool:
        # A sum is finite only where all parts are; where it alone is not, the original answers, which is right as well.
        if math.isfinite(rows.sum(dtype=dtype)):
            return True
        return bool(nan and (infinite or not np.isinf(rows.astype(dtype)).any()))

    return limits


def _check(form: forms.Form, read: Convert, check: Mapping[str, Any]) -> None:
    try:
        answer = orjson.loads(encode(form(read(check["data"]))))["predictions"]
    except Exception as error:
        raise HealthCheckFailed(f"The compiled model raised {type(error).__name__}: {error}") from error
    expected = check["predictions"]
    same = all(
        a == b or (isinstance(b, float | list) and np.allclose(a, b, rtol=1e-5))
        for a, b in zip(answer, expected, strict=True)
    )
    if not same:
        raise HealthCheckFailed(
            f"The compiled model answers {answer} where it answered {expected} when it was compiled."
        )
