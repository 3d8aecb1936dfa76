import datetime
import json
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from asgard.client.rows import body

MIXED = pd.DataFrame(
    {
        "age": [20, 30],
        "income": [0.1 + 0.2, math.nan],
        "city": ["Oslo", None],
        "member": [True, False],
        "at": pd.to_datetime(["2026-01-01T10:00:00.000000001", None]),
        "kind": pd.Series(["a", "b"], dtype="category"),
        "count": pd.Series([1, None], dtype="Int64"),
        "small": np.array([0.1, 0.2], dtype="float32"),
    }
)


def data(rows: Any) -> Any:
    content = json.loads(body(rows), parse_constant=pytest.fail)
    assert list(content) == ["data"]
    return content["data"]


def test_a_frame_goes_by_the_names_of_its_columns_with_its_types() -> None:
    assert data(MIXED) == [
        {"age": 20, "income": 0.30000000000000004, "city": "Oslo", "member": True,
         "at": "2026-01-01T10:00:00.000000001", "kind": "a", "count": 1, "small": pytest.approx(0.1)},
        {"age": 30, "income": None, "city": None, "member": False, "at": None, "kind": "b", "count": None,
         "small": pytest.approx(0.2)},
    ]  # fmt: skip


def test_a_frame_without_names_goes_by_position() -> None:
    assert data(pd.DataFrame([[1, 2.5], [3, 4.5]])) == [[1, 2.5], [3, 4.5]]


def test_a_frame_with_a_name_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        body(pd.DataFrame([[1, 2]], columns=["a", "a"]))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1, 2.5, "a", None]], [[1, 2.5, "a", None]]),
        ([{"a": 1}], [{"a": 1}]),
        ({"a": [1, 2]}, {"a": [1, 2]}),
        (((1, 2), (3, 4)), [[1, 2], [3, 4]]),
        (np.array([[1.5, np.nan]]), [[1.5, None]]),
        ([np.array([1, 2])], [[1, 2]]),
        ([[np.float32(0.5), np.int64(3), math.nan]], [[0.5, 3, None]]),
        ([[datetime.date(2026, 1, 1), pd.NaT, pd.NA]], [["2026-01-01", None, None]]),
        (
            {"at": np.array(["2026-01-01T10:00:00.000000001", "NaT"], dtype="datetime64[ns]")},
            {"at": ["2026-01-01T10:00:00.000000001", None]},
        ),
        ([[np.datetime64("2026-01-01", "ns"), np.datetime64("NaT")]], [["2026-01-01T00:00:00.000000000", None]]),
        ([[b"\x00\xff", Decimal("1.5"), Decimal("NaN")]], [["AP8=", 1.5, None]]),
    ],
)
def test_rows_of_every_kind_become_json(rows: Any, expected: Any) -> None:
    assert data(rows) == expected


@pytest.mark.parametrize(
    "make", [lambda: [[math.inf]], lambda: np.array([[-np.inf]]), lambda: pd.DataFrame({"a": [1.0, np.inf]})]
)
def test_an_infinite_number_is_refused_and_not_sent_as_missing(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        body(make())


def test_a_value_that_json_lacks_is_refused() -> None:
    with pytest.raises(TypeError, match="object has no form in JSON"):
        body([[object()]])
