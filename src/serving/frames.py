"""From the `data` of a request to frames, for models that take names, or columns of several types."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from . import inputs
from .inputs import Column, Reader
from .problems import InvalidInput


def columns(spec: Sequence[Column]) -> Reader:
    """A frame with the signature's columns and dtypes, from rows as lists, records, or (one column) plain values."""
    labels = pd.Index([column.name for column in spec])
    single = inputs.single_dtype(spec)
    all_required = all(column.required for column in spec)
    texts = pd.Series([""]).dtype  # of a missing one, too, as in the frames that models are fitted with
    if single is not None and all_required:
        return Reader(inputs.numbers(spec), lambda array: pd.DataFrame(array, columns=labels, copy=False))

    def read(data: Any) -> pd.DataFrame:
        rows = inputs.rows_of(inputs.as_rows(data, spec))
        present, chosen = spec, labels
        if isinstance(rows[0], dict) and not all_required:
            present = [c for c in spec if c.required or any(str(c.name) in row for row in inputs.records(rows))]
            rows = inputs.record_values(rows, present)
            chosen = pd.Index([column.name for column in present])
        else:
            rows = inputs.cells(data, spec)
        if single is not None:
            return pd.DataFrame(inputs.matrix(rows, single, labels), columns=chosen, copy=False)
        parts = zip(zip(*rows, strict=True), present, strict=True)
        values = [_column(list(cells), column, texts) for cells, column in parts]
        return _frame(values, chosen)

    def wrap(rows: Any) -> pd.DataFrame:
        if not isinstance(rows, np.ndarray):
            return rows
        # From a compiled form that does not take them.
        cells = zip(rows.T, spec, strict=True)
        return _frame([values.astype(inputs.NUMPY[column.kind]) for values, column in cells], labels)

    return Reader(read, wrap)


def _frame(values: list[Any], labels: pd.Index) -> pd.DataFrame:
    frame = pd.DataFrame(dict(enumerate(values)))
    frame.columns = labels
    return frame


def untyped(names: Sequence[str] | None, width: int | None, *, as_array: bool, only_numbers: bool = False) -> Reader:
    """For a model without signature. `names`, `width`: of the features it was fitted with, where it tells.

    Rows of numbers become an array (`as_array`) or a frame, other rows a frame; what is neither rows nor records is
    given to the model as it is. `only_numbers`: whether a column without any value must be of missing numbers.
    """
    spec = [Column(name, "object") for name in names] if names is not None else None

    def read(data: Any) -> Any:
        if width is not None:
            data = inputs.as_rows(data, ())
        if not isinstance(data, list) or (width is None and not (data and isinstance(data[0], list | dict))):
            if width is not None:
                raise inputs.not_rows(width)
            return data
        rows = inputs.rows_of(data)
        if isinstance(rows[0], dict):
            if spec is not None:
                frame = pd.DataFrame(inputs.record_values(rows, spec), columns=names)
            else:
                frame = pd.DataFrame.from_records(inputs.records(rows))
                if width is not None and frame.shape[1] != width:
                    raise InvalidInput(f"The model takes {width} columns; got {frame.shape[1]}.", location="/data")
            return _with_missing_numbers(frame) if only_numbers else frame
        if isinstance(rows[0], list) and any(isinstance(value, list) for value in rows[0]) and width is None:
            return inputs.any_array(rows, np.dtype("float32"))
        array = inputs.plain_matrix(rows, width, names)
        return pd.DataFrame(rows, columns=names) if array is None else array

    def wrap(rows: Any) -> Any:
        if isinstance(rows, np.ndarray) and rows.ndim == 2 and not (as_array and names is None):
            return pd.DataFrame(rows, columns=names, copy=False)
        return rows

    return Reader(read, wrap)


def _with_missing_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Of a column of nothing but null pandas makes one of objects."""
    empty = frame.columns[frame.isna().all()]
    return frame.astype(dict.fromkeys(empty, "float64"))


def _column(values: list[Any], column: Column, texts: Any) -> Any:
    """The cells of one column with its dtype. `texts`: the dtype of strings."""
    if column.kind in inputs.NUMPY:
        return inputs.column_of(values, column, np.dtype(inputs.NUMPY[column.kind]))
    if column.kind == "string":
        for position, value in enumerate(values):
            if value is not None and type(value) is not str:
                raise inputs.wrong(column, position, value)
    if column.kind in ("datetime", "binary"):
        values = [_parsed(value, position, column) for position, value in enumerate(values)]
    if column.kind == "datetime":
        return pd.to_datetime(pd.Series(values), utc=True).dt.tz_localize(None).astype("datetime64[ns]")
    return pd.Series(values, dtype=texts if column.kind == "string" else object)


def _parsed(value: Any, position: int, column: Column) -> Any:
    try:
        if value is None:
            return None
        if type(value) is str:
            return base64.b64decode(value, validate=True) if column.kind == "binary" else _time(value)
    except (binascii.Error, ValueError, OverflowError):
        pass
    raise inputs.wrong(column, position, value)


def _time(text: str) -> Any:
    """Raises ValueError or OverflowError, the latter where nanoseconds, in which the columns are, do not reach."""
    time = pd.Timestamp(text)
    time.value  # noqa: B018
    return time
