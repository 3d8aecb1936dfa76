"""How heavy modules are imported."""

import gc
import importlib
import subprocess
import sys

import pytest

from asgard.platform import imports

UNCHECKED = """
from asgard.platform import imports
imports.leave_types_unchecked()
from typeguard import typechecked
@typechecked
def twice(number: int) -> int: return 2 * number
@typechecked(forced=True)
class Store:
    def name(self) -> int: return "a"
print(twice("a"), Store().name())
import feast
print(feast.FeatureStore.__name__)
"""


def test_the_collector_is_back_after_imports_even_failed_ones() -> None:
    with imports.uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), imports.uncollected():
        importlib.import_module("of_nobody")
    assert gc.isenabled()


def test_feast_works_where_its_types_are_not_checked() -> None:
    answer = subprocess.run([sys.executable, "-c", UNCHECKED], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == ["aa a", "FeatureStore"]
