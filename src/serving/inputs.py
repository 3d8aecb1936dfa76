"""From the `data` of a request to what a model's predict takes. The way is chosen once, when the model is loaded."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from .problems import InvalidInput

Convert = Callable[[Any], Any]
"""Parsed JSON in, input of predict out. Raises InvalidInput, naming the column or the width."""

_NUMBER = {int, float}
_NULLABLE_NUMBER = {int, float, type(None)}


@dataclass(frozen=True)
class Column:
    """One named, typed input. `kind`: the MLflow type's name ("double", "string", ...), or "object"."""

    name: Any
    kind: str
    required: bool = True


def tensor(dtype: np.dtype, shape: Sequence[int]) -> Convert:
    """Arrays of one dtype. `shape`: of the whole batch; -1 is any size."""

    def convert(data: Any) -> np.ndarray:
        rows = _rows(data)
        if isinstance(rows[0], dict):
            raise InvalidInput("The model takes arrays without column names: send rows as lists.", location="/data/0")
        if len(shape) == 2:
            _check_widths(rows, shape[1] if shape[1] >= 0 else None)
            if dtype.kind in "iuf":
                return _matrix(rows, dtype, range(len(rows[0])))
        array = _any_array(rows, dtype)
        if array.ndim != len(shape) or any(n not in (-1, m) for n, m in zip(shape, array.shape, strict=True)):
            raise InvalidInput(
                f"The model takes an array of shape {_shape(shape)}; got {_shape(array.shape)}.", location="/data"
            )
        return array

    return convert


def named_tensors(tensors: dict[str, tuple[np.dtype, Sequence[int]]]) -> Convert:
    """Several arrays by name: rows are objects with one entry per name, or `data` is one object of whole arrays."""
    parts = {name: tensor(dtype, shape) for name, (dtype, shape) in tensors.items()}

    def convert(data: Any) -> dict[str, np.ndarray]:
        if isinstance(data, dict):
            _check_names(data, parts, "/data")
            return {name: part(data[name]) for name, part in parts.items()}
        rows = _records(_rows(data))
        for position, row in enumerate(rows):
            _check_names(row, parts, f"/data/{position}")
        return {name: part([row[name] for row in rows]) for name, part in parts.items()}

    return convert


def columns(spec: Sequence[Column]) -> Convert:
    """A frame with the signature's columns and dtypes, from rows as lists, records, or (one column) plain values."""
    labels = pd.Index([column.name for column in spec])
    kinds = {column.kind for column in spec}
    # Columns of one numeric type are filled from a single array: a tenth of the time of one array per column.
    single = np.dtype(_NUMPY[next(iter(kinds))]) if len(kinds) == 1 and kinds <= _NUMPY.keys() - {"boolean"} else None
    all_required = all(column.required for column in spec)

    def convert(data: Any) -> pd.DataFrame:
        rows = _rows([data] if isinstance(data, dict) else data)
        if isinstance(rows[0], dict):
            present = (
                spec
                if all_required
                else [c for c in spec if c.required or any(str(c.name) in row for row in _records(rows))]
            )
            rows = _values(rows, present)
            chosen = labels if len(present) == len(spec) else pd.Index([column.name for column in present])
        else:
            if len(spec) == 1 and not isinstance(rows[0], list):
                rows = [[value] for value in rows]
            _check_widths(rows, len(spec))
            present, chosen = spec, labels
        if single is not None:
            return pd.DataFrame(_matrix(rows, single, labels), columns=chosen, copy=False)
        values = [_column(list(cells), column) for cells, column in zip(zip(*rows, strict=True), present, strict=True)]
        frame = pd.DataFrame(dict(enumerate(values)))
        frame.columns = chosen
        return frame

    return convert


def untyped(names: Sequence[str] | None, width: int | None, *, as_array: bool) -> Convert:
    """For a model without signature. `names`, `width`: of the features it was fitted with, where it tells.

    Rows of numbers become an array (`as_array`) or a frame, other rows a frame; what is neither rows nor records is
    given to the model as it is.
    """
    spec = [Column(name, "object") for name in names] if names is not None else None

    def convert(data: Any) -> Any:
        if not isinstance(data, list) or (width is None and not (data and isinstance(data[0], list | dict))):
            if width is not None:
                raise InvalidInput(f"data must be rows of {width} values.", location="/data")
            return data
        rows = _rows(data)
        if isinstance(rows[0], dict):
            if spec is not None:
                return pd.DataFrame(_values(rows, spec), columns=names)
            frame = pd.DataFrame.from_records(_records(rows))
            if width is not None and frame.shape[1] != width:
                raise InvalidInput(f"The model takes {width} columns; got {frame.shape[1]}.", location="/data")
            return frame
        if isinstance(rows[0], list) and any(isinstance(value, list) for value in rows[0]) and width is None:
            return _any_array(rows, np.dtype("float32"))
        _check_widths(rows, width)
        if set(map(type, chain.from_iterable(rows))) <= _NULLABLE_NUMBER:
            whole = all(type(value) is int for value in chain.from_iterable(rows))
            array = _matrix(rows, np.dtype("int64" if whole else "float64"), names or range(len(rows[0])))
            return array if as_array and names is None else pd.DataFrame(array, columns=names, copy=False)
        return pd.DataFrame(rows, columns=names)

    return convert


def _rows(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise InvalidInput(
            "data must be a list of rows, or a list of objects with one entry per column.", location="/data"
        )
    if not data:
        raise InvalidInput("data has no rows.", location="/data")
    return data


def _records(rows: list[Any]) -> list[dict[str, Any]]:
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InvalidInput(f"Row {position} is no object, unlike the first row.", location=f"/data/{position}")
    return rows


def _check_widths(rows: list[Any], width: int | None) -> None:
    """Every row a list of `width` values (None: as many as the first has)."""
    if set(map(type, rows)) != {list}:
        position = next(i for i, row in enumerate(rows) if type(row) is not list)
        wanted = "a list of values" if width is None else f"a list of {width} values"
        raise InvalidInput(
            f"Row {position} must be {wanted}; got {_name(rows[position])}.", location=f"/data/{position}"
        )
    widths = set(map(len, rows))
    expected = len(rows[0]) if width is None else width
    if widths != {expected} or not expected:
        position = next((i for i, row in enumerate(rows) if len(row) != expected), 0)
        raise InvalidInput(
            f"Row {position} has {len(rows[position])} values; expected {expected or 'some'}.",
            location=f"/data/{position}",
        )


def _check_names(row: dict[str, Any], names: Any, location: str) -> None:
    missing = [str(name) for name in names if str(name) not in row]
    if missing:
        extra = [name for name in row if name not in {str(name) for name in names}]
        hint = f" Not a column of the model: {_quoted(extra)}." if extra else ""
        raise InvalidInput(
            f"Missing column{'s' if len(missing) > 1 else ''} {_quoted(missing)}.{hint}", location=location
        )


def _values(rows: list[Any], spec: Sequence[Column]) -> list[list[Any]]:
    """Records as lists in the order of `spec`. Entries that the model does not know are left out, as MLflow does."""
    keys = [str(column.name) for column in spec]
    required = [column.name for column in spec if column.required]
    try:
        if len(required) == len(spec):
            return [[row[key] for key in keys] for row in rows]
    except (KeyError, TypeError):
        pass
    for position, row in enumerate(_records(rows)):
        _check_names(row, required, f"/data/{position}")
    return [[row.get(key) for key in keys] for row in rows]


def _matrix(rows: list[list[Any]], dtype: np.dtype, names: Sequence[Any]) -> np.ndarray:
    """Rows of equal width as an array of shape (rows, columns)."""
    kinds = set(map(type, chain.from_iterable(rows)))
    if kinds <= (_NULLABLE_NUMBER if dtype.kind == "f" else {int}):
        try:
            return np.array(rows, dtype=dtype)
        except OverflowError:
            pass  # the columns are tried one by one, to name the one
    kind = next(kind for kind, numpy in _NUMPY.items() if dtype == numpy) if dtype in _NUMPY.values() else dtype.name
    return np.column_stack(
        [
            _numbers(list(cells), Column(name, kind), dtype)
            for name, cells in zip(names, zip(*rows, strict=True), strict=True)
        ]
    )


def _numbers(values: list[Any], column: Column, dtype: np.dtype) -> np.ndarray:
    allowed = {bool} if dtype.kind == "b" else _NULLABLE_NUMBER if dtype.kind == "f" else _NUMBER
    for position, value in enumerate(values):
        if type(value) not in allowed or (dtype.kind in "iu" and type(value) is float and not value.is_integer()):
            raise _wrong(column, position, value)
    try:
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            for position, value in enumerate(values):
                if not limits.min <= value <= limits.max:
                    raise _wrong(column, position, value)
            return np.array([int(value) for value in values], dtype=dtype)
        return np.array(values, dtype=dtype)
    except OverflowError as error:
        raise InvalidInput(
            f"Column {column.name!r}: a number is out of the range of {dtype}.", location="/data"
        ) from error


def _any_array(data: list[Any], dtype: np.dtype) -> np.ndarray:
    try:
        array = np.array(data)
        if array.dtype.kind == "O" and dtype.kind == "f" and set(map(type, array.ravel().tolist())) <= _NULLABLE_NUMBER:
            array = array.astype(dtype)
    except (ValueError, TypeError, OverflowError):
        raise InvalidInput("data must be an array: all its parts of equal length.", location="/data") from None
    fits = {"f": "iuf", "i": "iu", "u": "iu", "b": "b", "U": "U", "S": "U", "O": "biufUO"}.get(dtype.kind, "")
    if array.dtype.kind not in fits:
        raise InvalidInput(f"data must be an array of {dtype.name}.", location="/data")
    return array if dtype.kind in "US" else array.astype(dtype)


def _column(values: list[Any], column: Column) -> Any:
    """The cells of one column with its dtype."""
    if column.kind in _NUMPY:
        return _numbers(values, column, np.dtype(_NUMPY[column.kind]))
    if column.kind == "string":
        for position, value in enumerate(values):
            if value is not None and type(value) is not str:
                raise _wrong(column, position, value)
    if column.kind in ("datetime", "binary"):
        values = [_parsed(value, position, column) for position, value in enumerate(values)]
    if column.kind == "datetime":
        return pd.to_datetime(pd.Series(values), utc=True).dt.tz_localize(None).astype("datetime64[ns]")
    return pd.Series(values, dtype=object)


def _parsed(value: Any, position: int, column: Column) -> Any:
    try:
        if value is None:
            return None
        if type(value) is str:
            return base64.b64decode(value, validate=True) if column.kind == "binary" else pd.Timestamp(value)
    except (binascii.Error, ValueError):
        pass
    raise _wrong(column, position, value)


_NUMPY = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}

_WANTED = {
    "boolean": "true or false",
    "integer": "a whole number of 32 bits",
    "long": "a whole number of 64 bits",
    "float": "a number",
    "double": "a number",
    "string": "a string",
    "datetime": "a time in ISO 8601",
    "binary": "bytes in base64",
}


def _wrong(column: Column, position: int, value: Any) -> InvalidInput:
    wanted = _WANTED.get(column.kind, f"a number ({column.kind})")
    return InvalidInput(
        f"Column {column.name!r}, row {position}: expected {wanted}, got {_name(value)}.", location=f"/data/{position}"
    )


def _name(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    text = (
        {None: "null", True: "true", False: "false"}.get(value)
        if value is None or isinstance(value, bool)
        else repr(value)
    )
    return str(text)[:80]


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:20]) + (", …" if len(names) > 20 else "")


def _shape(shape: Sequence[int]) -> str:
    return "(" + ", ".join("any" if n < 0 else str(n) for n in shape) + ")"


def odd_cell(data: Any, names: Sequence[str] | None) -> InvalidInput | None:
    """The first cell that is no number, in rows or records: the likely reason where an untyped model refused them."""
    for position, row in enumerate(data if isinstance(data, list) else ()):
        cells = row.items() if isinstance(row, dict) else enumerate(row) if isinstance(row, list) else ()
        for key, value in cells:
            if type(value) not in _NUMBER:
                label = names[key] if isinstance(key, int) and names is not None and key < len(names) else key
                return _wrong(Column(label, "double"), position, value)
    return None
