"""Kubernetes quantities, as in `2Gi` or `500m`.

Format: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from decimal import Decimal
from typing import Final

_SUFFIX: Final = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"),
    "k": Decimal(10) ** 3, "M": Decimal(10) ** 6, "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12, "P": Decimal(10) ** 15, "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10, "Mi": Decimal(2) ** 20, "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40, "Pi": Decimal(2) ** 50, "Ei": Decimal(2) ** 60,
}  # fmt: skip
_NUMBER: Final = r"(\d{1,18}(?:\.\d{0,9})?|\.\d{1,9})"
_QUANTITY: Final = re.compile(_NUMBER + r"(?:([eE][+-]?\d{1,2})|([numkMGTPE]|[KMGTPE]i)?)", re.ASCII)


def parse(quantity: str) -> Decimal:
    """Units (bytes, cores) of a non-negative quantity. Raises ValueError."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is not a Kubernetes quantity such as 2Gi, 512Mi, 1 or 500m")
    number, exponent, suffix = match.groups()
    return Decimal(number + exponent) if exponent else Decimal(number) * _SUFFIX[suffix or ""]


def to_bytes(quantity: str) -> int:
    """Whole bytes of a memory quantity. Raises ValueError."""
    return int(parse(quantity))


def to_millicores(quantity: str) -> int:
    """Thousandths of a core of a CPU quantity. Raises ValueError."""
    return int(parse(quantity) * 1000)
