"""The check that a model must pass before it serves."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from mlflow.models import Model

from . import outputs
from .inputs import Reader
from .loaded import Predict
from .problems import HealthCheckFailed
from .signatures import input_schema, made_data, only_fractions

log = logging.getLogger(__name__)

HealthCheck = Literal["input_example", "signature", "loaded"]
"""What a model predicted before it counted as healthy: its input example, a row made from its signature, or nothing."""


def check(meta: Model, path: Path, reader: Reader, predict: Predict) -> HealthCheck:
    """Predict the input example, else a row made from the signature. Raises HealthCheckFailed."""
    if meta.saved_input_example_info is not None:
        _predict(predict, lambda: meta.load_input_example(str(path)), "its input example")
        return "input_example"
    schema = input_schema(meta)
    data = None if schema is None else made_data(schema)
    if data is None:
        return "loaded"
    try:
        _predict(predict, lambda: reader.wrap(reader.read(data)), "a row made from its signature")
    except HealthCheckFailed as error:
        # A made-up text, day or whole number need not be among the categories that an encoder was fitted with, so there
        # a complaint about the value says nothing about the model. A made-up fraction is as good as any other.
        if _is_of_value(error.__cause__) and not only_fractions(schema):
            log.warning("%s. The row is made up, so the model counts as loaded.", error)
            return "loaded"
        raise
    return "signature"


def _is_of_value(error: BaseException | None) -> bool:
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, ValueError | LookupError | ArithmeticError) or library in _OF_FORMULAS


_OF_FORMULAS = ("patsy", "formulaic")
"""Libraries that read the formulas of statsmodels, and raise errors of their own for values."""


def _predict(predict: Predict, data: Callable[[], Any], what: str) -> None:
    try:
        outputs.encode(predict(data()))
    except Exception as error:
        raise HealthCheckFailed(f"The model raised {type(error).__name__} for {what}: {error}") from error
