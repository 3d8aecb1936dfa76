"""What a model returned, as JSON."""

import base64
import datetime
import decimal
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import orjson
import pandas as pd

from .arrays import plain_array
from .problems import NotSerializable

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def encode(prediction: Any) -> bytes:
    """The body `{"predictions": ...}`.

    Arrays and series become lists; a frame of one column the list of its values, of several a list of objects; missing
    and infinite numbers become null, times ISO 8601, bytes base64. Raises NotSerializable.
    """
    content = {"predictions": plain(prediction)}
    try:
        return orjson.dumps(content, default=_default, option=_OPTIONS)
    except TypeError:
        # Keys that are no strings are rare and checking for them is slow, so only a second try allows them.
        try:
            options = _OPTIONS | orjson.OPT_NON_STR_KEYS
            return orjson.dumps(_keyed(content), default=lambda value: _keyed(_default(value)), option=options)
        except TypeError as error:
            raise NotSerializable(str(error)) from error


def _keyed(value: Any) -> Any:
    """`value` with Python's keys for NumPy's, which orjson does not know, such as a classifier's labels."""
    if isinstance(value, Mapping):
        return {key.item() if isinstance(key, np.generic) else key: _keyed(part) for key, part in value.items()}
    return [_keyed(part) for part in value] if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """`value` with frames, series and arrays that orjson does not write itself turned into lists and objects."""
    if isinstance(value, np.ma.MaskedArray):
        return value.tolist()  # with None where it is masked
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, pd.DataFrame):
        return _frame(value)
    if isinstance(value, pd.Series | pd.Index):
        return _array(_values(value))
    return value


def _values(column: Any) -> np.ndarray:
    """Of a series or an index. Beside missing values pandas makes whole numbers fractions, which rounds large ones."""
    types = pd.api.types
    whole = types.is_extension_array_dtype(column.dtype) and types.is_integer_dtype(column.dtype)
    found: np.ndarray = (column.astype(object) if whole and column.isna().any() else column).to_numpy()
    return found


def _array(array: np.ndarray) -> Any:
    if array.dtype.kind == "m" and array.ndim:
        return [pd.Timedelta(value) for value in array.ravel()]
    return plain_array(array)


def _frame(frame: pd.DataFrame) -> list[Any]:
    columns = [_array(_values(frame.iloc[:, position])) for position in range(frame.shape[1])]
    listed = [column.tolist() if _exact_as_list(column) else list(column) for column in columns]
    if len(listed) == 1:
        return listed[0]
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*listed, strict=True)]


def _exact_as_list(column: Any) -> bool:
    # A float32 turned into a Python float shows digits that the model never gave, so those stay numpy scalars.
    return isinstance(column, np.ndarray) and not (column.dtype.kind == "f" and column.dtype.itemsize < 8)


def _default(value: Any) -> Any:
    """The hook that orjson calls for what it does not know."""
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, datetime.date | datetime.time):  # subclasses such as pandas.Timestamp
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return pd.Timedelta(value).isoformat()
    if isinstance(value, decimal.Decimal):
        return orjson.Fragment(str(value)) if value.is_finite() else None
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, float):  # subclasses
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.ndarray | pd.DataFrame | pd.Series | pd.Index):
        return plain(value)
    # pydantic models; arrays and tensors; SciPy's sparse arrays; what pandas and MLflow make
    for method in ("model_dump", "tolist", "toarray", "to_dict"):
        if callable(getattr(value, method, None)):
            return getattr(value, method)()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"a {type(value).__name__} has no form in JSON")
