"""Whatever makes syntax trees, one at a time.

CPython 3.11 counts their depth for all threads together, and raises SystemError where threads take turns:
https://github.com/python/cpython/issues/106905. What a marker compares with is such a tree, too.
"""

import ast
import threading

from packaging.markers import Marker
from packaging.requirements import Requirement

_ONE_AT_A_TIME = threading.Lock()


def tree(script: bytes) -> ast.Module:
    """Raises SyntaxError, ValueError."""
    with _ONE_AT_A_TIME:
        return ast.parse(script)


def marker(text: str) -> Marker:
    """Of PEP 508. Raises InvalidMarker."""
    with _ONE_AT_A_TIME:
        return Marker(text)


def requirement(text: str) -> Requirement:
    """Of PEP 508. Raises InvalidRequirement."""
    with _ONE_AT_A_TIME:
        return Requirement(text)
