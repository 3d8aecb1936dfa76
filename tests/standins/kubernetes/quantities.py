"""Kubernetes quantities in the one form in which the API server gives them back: `1000m` is `1`, `2048Mi` is `2Gi`.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from fractions import Fraction
from typing import Final

_FORM: Final = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(?:([KMGTPE]i)|([numkMGTPE])|[eE]([+-]?\d+))?$")
_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL: Final = {"n": -3, "u": -2, "m": -1, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_NANO: Final = Fraction(1, 10**9)


def canonical(text: str) -> str:
    """Raises ValueError for what is no quantity."""
    parts = _FORM.match(text)
    if parts is None:
        raise ValueError(f"{text!r} is not a quantity")
    number, binary, decimal, exponent = parts.groups()
    if binary:
        value = Fraction(number) * 1024 ** _BINARY[binary]
        return _binary(value) if abs(value) >= 1024 or value == 0 else _decimal(value)
    if exponent is not None:
        return _with_exponent(Fraction(number) * Fraction(10) ** int(exponent))
    return _decimal(Fraction(number) * Fraction(1000) ** _DECIMAL.get(decimal or "", 0))


def _binary(value: Fraction) -> str:
    if value.denominator != 1:
        return _decimal(value)
    whole, suffix = int(value), ""
    for candidate in _BINARY:
        if whole == 0 or whole % 1024:
            break
        whole, suffix = whole // 1024, candidate
    return f"{whole}{suffix}"


def _decimal(value: Fraction) -> str:
    mantissa, power = _thousands(value)
    suffix = next((name for name, known in _DECIMAL.items() if known == power), "")
    return f"{mantissa}{suffix}"


def _with_exponent(value: Fraction) -> str:
    mantissa, power = _thousands(value)
    return f"{mantissa}e{3 * power}" if power else str(mantissa)


def _thousands(value: Fraction) -> tuple[int, int]:
    """A whole number and a power of 1000; nothing is finer than a thousand-millionth, which is rounded up."""
    if value == 0:
        return 0, 0
    whole = -(-abs(value) // _NANO)
    power = -3
    while whole % 1000 == 0 and power < 6:
        whole, power = whole // 1000, power + 1
    return int(whole) if value > 0 else -int(whole), power
