"""From the `data` of a request to what a model's predict takes. The way is chosen once, when the model is loaded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from .problems import InvalidInput

Convert = Callable[[Any], Any]
"""Parsed JSON in, rows out. Raises InvalidInput, naming the column or the width."""

_NUMBER = {int, float}
_NULLABLE_NUMBER = {int, float, type(None)}


@dataclass(frozen=True)
class Reader:
    """`read`: parsed JSON to rows; `wrap`: rows to the input of predict.

    Rows are arrays wherever they can be: those of several requests with one dtype and width can be put together.
    """

    read: Convert
    wrap: Convert = lambda rows: rows


@dataclass(frozen=True)
class Column:
    """One named, typed input. `kind`: the MLflow type's name ("double", "string", ...), or "object"."""

    name: Any
    kind: str
    required: bool = True


def tensor(dtype: np.dtype, shape: Sequence[int]) -> Convert:
    """Arrays of one dtype. `shape`: of the whole batch; -1 is any size."""

    def convert(data: Any) -> np.ndarray:
        rows = rows_of(data)
        if isinstance(rows[0], dict):
            raise InvalidInput("The model takes arrays without column names: send rows as lists.", location="/data/0")
        if len(shape) == 2:
            check_widths(rows, shape[1] if shape[1] >= 0 else None)
            if dtype.kind in "iuf":
                return matrix(rows, dtype, range(len(rows[0])))
        array = any_array(rows, dtype)
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
            check_names(data, parts, "/data")
            return {name: _part(name, part, data[name]) for name, part in parts.items()}
        rows = records(rows_of(data))
        for position, row in enumerate(rows):
            check_names(row, parts, f"/data/{position}")
        return {name: _part(name, part, [row[name] for row in rows]) for name, part in parts.items()}

    return convert


def _part(name: str, convert: Convert, data: Any) -> Any:
    try:
        return convert(data)
    except InvalidInput as error:
        raise InvalidInput(f"Input {name!r}: {error.detail}", location=f"/data/{name}") from error


def numbers(spec: Sequence[Column]) -> Convert:
    """Rows of numbers, as lists or records, as one array of shape (rows, columns); its dtype holds all columns' kinds.

    Raises ValueError where a column is optional or not of numbers.
    """
    dtype = single_dtype(spec)
    if not all(c.required for c in spec) or not {c.kind for c in spec} <= _NUMERIC:
        raise ValueError("a column is optional, or not of numbers")
    names = [column.name for column in spec]

    def convert(data: Any) -> np.ndarray:
        found = cells(data, spec)
        if dtype is not None:
            return matrix(found, dtype, names)
        parts = zip(zip(*found, strict=True), spec, strict=True)
        return np.column_stack(
            [column_of(list(values), column, np.dtype(NUMPY[column.kind])) for values, column in parts]
        )

    return convert


def single_dtype(spec: Sequence[Column]) -> np.dtype | None:
    """The one dtype of columns that are all of it and numbers: filled from a single array, in a tenth of the time."""
    kinds = {column.kind for column in spec}
    return np.dtype(NUMPY[next(iter(kinds))]) if len(kinds) == 1 and kinds <= _NUMERIC else None


def cells(data: Any, spec: Sequence[Column]) -> list[list[Any]]:
    """Rows as lists in the order of `spec`, from lists, records, columns, or (one column) plain values."""
    found = rows_of(as_rows(data, spec))
    if isinstance(found[0], dict):
        return record_values(found, spec)
    if len(spec) == 1 and not isinstance(found[0], list):
        found = [[value] for value in found]
    check_widths(found, len(spec))
    return found


def as_rows(data: Any, spec: Sequence[Column]) -> Any:
    """`{"column": [values], ...}` as records, one record alone as a list of it; anything else as it is."""
    if not isinstance(data, dict):
        return data
    # A list may be the one value of a column that holds lists.
    if not data or any(type(values) is not list for values in data.values()) or any(c.kind == "object" for c in spec):
        return [data]
    lengths = {name: len(values) for name, values in data.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name!r} has {length}" for name, length in list(lengths.items())[:20])
        raise InvalidInput(f"The columns must have as many values as each other: {told}.", location="/data")
    return [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]


def untyped_numbers(names: Sequence[str] | None, width: int) -> Convert:
    """Rows of numbers for a model without signature; `data` as it is where it holds anything else.

    Refuses what `frames.untyped` refuses. Records of as many entries as a model without names takes are in its order.
    """
    spec = None if names is None else [Column(name, "double") for name in names]

    def convert(data: Any) -> Any:
        data = as_rows(data, ())
        if not isinstance(data, list):
            raise not_rows(width)
        rows = rows_of(data)
        if isinstance(rows[0], dict):
            if spec is not None:
                rows = record_values(rows, spec)
            elif len(rows[0]) == width and _alike(rows):
                rows = [[row[key] for key in rows[0]] for row in rows]
            else:
                return data
        array = plain_matrix(rows, width, names)
        return data if array is None else array

    return convert


def _alike(rows: list[Any]) -> bool:
    """Whether all rows are records with the entries of the first."""
    keys = rows[0].keys()
    return all(type(row) is dict and row.keys() == keys for row in rows)


def not_rows(width: int) -> InvalidInput:
    """For `data` that is no list."""
    return InvalidInput(f"data must be rows of {width} values.", location="/data")


def plain_matrix(rows: list[Any], width: int | None, names: Sequence[Any] | None) -> np.ndarray | None:
    """Rows as an array of whole numbers or fractions; None where a cell is something else."""
    check_widths(rows, width)
    kinds = _kinds(rows)
    if not kinds <= _NULLABLE_NUMBER:
        return None
    dtype = np.dtype("int64" if kinds == {int} else "float64")
    return _matrix(rows, kinds, dtype, names or range(len(rows[0])))


def rows_of(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise InvalidInput(
            "data must be a list of rows, or a list of objects with one entry per column.", location="/data"
        )
    if not data:
        raise InvalidInput("data has no rows.", location="/data")
    return data


def records(rows: list[Any]) -> list[dict[str, Any]]:
    for position, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InvalidInput(f"Row {position} is no object, unlike the first row.", location=f"/data/{position}")
    return rows


def check_widths(rows: list[Any], width: int | None) -> None:
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


def check_names(row: dict[str, Any], names: Any, location: str) -> None:
    missing = [str(name) for name in names if str(name) not in row]
    if missing:
        extra = [name for name in row if name not in {str(name) for name in names}]
        hint = f" Not a column of the model: {_quoted(extra)}." if extra else ""
        raise InvalidInput(
            f"Missing column{'s' if len(missing) > 1 else ''} {_quoted(missing)}.{hint}", location=location
        )


def record_values(rows: list[Any], spec: Sequence[Column]) -> list[list[Any]]:
    """Records as lists in the order of `spec`. Entries that the model does not know are left out, as MLflow does."""
    keys = [str(column.name) for column in spec]
    required = [column.name for column in spec if column.required]
    try:
        if len(required) == len(spec):
            return [[row[key] for key in keys] for row in rows]
    except (KeyError, TypeError):
        pass
    for position, row in enumerate(records(rows)):
        check_names(row, required, f"/data/{position}")
    return [[row.get(key) for key in keys] for row in rows]


def matrix(rows: list[list[Any]], dtype: np.dtype, names: Sequence[Any]) -> np.ndarray:
    """Rows of equal width as an array of shape (rows, columns)."""
    return _matrix(rows, _kinds(rows), dtype, names)


def _kinds(rows: list[list[Any]]) -> set[type]:
    return set(map(type, chain.from_iterable(rows)))


def _matrix(rows: list[list[Any]], kinds: set[type], dtype: np.dtype, names: Sequence[Any]) -> np.ndarray:
    whole = dtype.kind in "iu"
    if kinds <= ({int} if whole else _NULLABLE_NUMBER):
        try:
            wide = np.dtype("int64" if whole else "float64")
            if kinds <= _NUMBER:  # in half the time
                shape = len(rows), len(rows[0])
                found = np.fromiter(chain.from_iterable(rows), wide, shape[0] * shape[1]).reshape(shape)
            else:
                found = np.array(rows, dtype=wide)
        except OverflowError:
            pass  # the columns are tried one by one, to name the one
        else:
            if found.dtype == dtype:
                return found
            cast, lost = _cast(found, dtype)
            if not lost.any():
                return cast
    kind = next(kind for kind, numpy in NUMPY.items() if dtype == numpy) if dtype in NUMPY.values() else dtype.name
    return np.column_stack(
        [
            column_of(list(cells), Column(name, kind), dtype)
            for name, cells in zip(names, zip(*rows, strict=True), strict=True)
        ]
    )


def column_of(values: list[Any], column: Column, dtype: np.dtype) -> np.ndarray:
    allowed = {bool} if dtype.kind == "b" else _NULLABLE_NUMBER if dtype.kind == "f" else _NUMBER
    for position, value in enumerate(values):
        if type(value) not in allowed or (dtype.kind in "iu" and type(value) is float and not value.is_integer()):
            raise wrong(column, position, value)
    try:
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            for position, value in enumerate(values):
                if not limits.min <= value <= limits.max:
                    raise wrong(column, position, value)
            return np.array([int(value) for value in values], dtype=dtype)
        if dtype.kind != "f":
            return np.array(values, dtype=dtype)
        cast, lost = _cast(np.array(values, dtype="float64"), dtype)
        if lost.any():
            raise wrong(column, int(lost.argmax()), values[int(lost.argmax())])
        return cast
    except OverflowError as error:
        raise InvalidInput(
            f"Column {column.name!r}: a number is out of the range of {dtype}.", location="/data"
        ) from error


def any_array(data: list[Any], dtype: np.dtype) -> np.ndarray:
    try:
        # By its own choice NumPy makes texts of numbers that stand beside texts.
        array = np.array(data, dtype=object if dtype.kind == "O" else None)
        kinds = set(map(type, array.ravel().tolist())) if array.dtype.kind == "O" else set()
        if list in kinds:
            raise ValueError("ragged")
        if kinds and dtype.kind == "f" and kinds <= _NULLABLE_NUMBER:
            array = array.astype(dtype)
    except (ValueError, TypeError, OverflowError):
        raise InvalidInput("data must be an array: all its parts of equal length.", location="/data") from None
    fits = {"f": "iuf", "i": "iu", "u": "iu", "b": "b", "U": "U", "S": "U", "O": "biufUO"}.get(dtype.kind, "")
    if array.dtype.kind not in fits:
        raise InvalidInput(f"data must be an array of {dtype.name}.", location="/data")
    if dtype.kind in "US":
        return array
    cast, lost = _cast(array, dtype)
    if lost.any():
        raise InvalidInput(f"A number is out of the range of {dtype}.", location="/data")
    return cast


def _cast(array: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The array as `dtype`, and where its numbers do not fit that: NumPy lets them wrap, or become infinite."""
    with np.errstate(over="ignore"):
        cast = array.astype(dtype, copy=False)
    if dtype.kind == "f":
        return cast, np.isinf(cast) & np.isfinite(array)
    return cast, cast != array if dtype.kind in "iu" else np.zeros(cast.shape, bool)


NUMPY = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}
_NUMERIC = NUMPY.keys() - {"boolean"}

_WANTED = {
    "boolean": "true or false",
    "integer": "a whole number of 32 bits",
    "long": "a whole number of 64 bits",
    "float": "a number of 32 bits",
    "double": "a number",
    "string": "a string",
    "datetime": "a time in ISO 8601, of the years 1678 to 2261",
    "binary": "bytes in base64",
}


def wrong(column: Column, position: int, value: Any) -> InvalidInput:
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


def odd_width(data: Any, width: int) -> InvalidInput | None:
    """Why `data` is no rows of `width` values: the likely reason where a model refused it. Records are passed over."""
    try:
        rows = rows_of(as_rows(data, ()))
        if not isinstance(rows[0], dict):
            check_widths(rows, width)
    except InvalidInput as error:
        return error
    return None


def left_out(data: Any, columns: Sequence[Column]) -> InvalidInput | None:
    """The columns that no record has: the likely reason where a model refused records that may leave some out."""
    rows = as_rows(data, columns)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return None
    try:
        check_names(dict.fromkeys(chain.from_iterable(rows)), [column.name for column in columns], "/data")
    except InvalidInput as error:
        return error
    return None


def odd_cell(data: Any, columns: Sequence[Column] | None) -> InvalidInput | None:
    """The first cell that is no finite number of 32 bits, or a missing text: the likely reason why rows are refused.

    `columns`: None where they have no names. Those of other kinds, and entries of no column, are passed over.
    """
    known = {key: column for place, column in enumerate(columns or ()) for key in (place, str(column.name))}
    rows = as_rows(data, columns or ())
    for position, row in enumerate(rows if isinstance(rows, list) else ()):
        cells = row.items() if isinstance(row, dict) else enumerate(row) if isinstance(row, list) else ()
        for key, value in cells:
            column = Column(key, "double") if columns is None else known.get(key)
            if column is not None and _is_odd(column.kind, value):
                return wrong(column, position, value)
    return None


_LARGEST = float(np.finfo(np.float32).max)


def _is_odd(kind: str, value: Any) -> bool:
    return value is None if kind == "string" else kind in _NUMERIC and not _is_finite(value)


def _is_finite(value: Any) -> bool:
    return type(value) in _NUMBER and abs(value) <= _LARGEST
