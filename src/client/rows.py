"""The body of a prediction from rows, records, arrays or a DataFrame; pandas is not imported for it."""

import base64
import json
import math
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    class _Array(Protocol):
        """An array of numpy, or a series."""

        def tolist(self) -> Any: ...

    Rows: TypeAlias = Sequence[Any] | Mapping[str, Any] | _Array | pd.DataFrame


def body(rows: "Rows") -> bytes:
    """`{"data": ...}` in JSON. Missing values (NaN, NaT, NA) become null.

    Raises ValueError for infinite numbers, which JSON does not have, and TypeError for other values that it lacks.
    """
    content = {"data": _records(rows) if hasattr(rows, "itertuples") else rows}
    try:
        return json.dumps(content, default=_plain, allow_nan=False).encode()
    except ValueError:  # a float that is not finite, which no hook of `json` sees
        return json.dumps(_without_nan(content), default=_plain, allow_nan=False).encode()


def _records(frame: Any) -> list[Any]:
    """The rows of a DataFrame: by name where it has names for its columns, else by position."""
    names = list(frame.columns)
    if not all(isinstance(name, str) for name in names):
        return [list(row) for row in frame.itertuples(index=False, name=None)]
    if len(set(names)) < len(names):
        raise ValueError("Two columns of the DataFrame have the same name")
    return [dict(zip(names, row, strict=True)) for row in frame.itertuples(index=False, name=None)]


def _plain(value: Any) -> Any:
    """The hook that `json` calls for what it does not know."""
    if type(value).__name__ == "NAType" or (isinstance(value, date) and value != value):
        return None
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return None if value.is_nan() else float(value)
    if type(value).__module__ == "numpy" and value.dtype.kind == "M":  # `tolist` makes nanoseconds plain numbers
        return _without_nat(value.astype(str).tolist())
    if callable(getattr(value, "tolist", None)):  # arrays and scalars of numpy, series
        return _without_nan(value.tolist())
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return value


def _without_nat(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nat(one) for one in value]
    return None if value == "NaT" else value
