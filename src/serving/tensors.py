"""Tensors of the Open Inference Protocol, as JSON and as bytes, from and to arrays.

Arrays of numbers have the datatype's dtype; arrays of BYTES are of objects: str, bytes or None. As JSON a tensor is its
elements in row-major order (https://github.com/kserve/open-inference-protocol, inference_rest.md); as bytes it is
little-endian and without gaps, and each element of BYTES follows its length in 4 bytes
(https://github.com/triton-inference-server/server, extension_binary_data.md).
"""

import base64
import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from .arrays import plain_array
from .problems import InvalidInput

BYTES = "BYTES"
BF16 = "BF16"
"""The upper halves of FP32 numbers, which NumPy does not have; models get, and give, those."""

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype("bool"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    BYTES: np.dtype(object),
    BF16: np.dtype("<f4"),
}

DIMENSIONS = 32
"""At most; NumPy before 2 has no more."""

_NAMES = {dtype: name for name, dtype in DTYPES.items() if name != BF16}

_JSON: dict[str, set[type]] = {
    "b": {bool},
    "u": {int},
    "i": {int},
    "f": {int, float, type(None)},
    "O": {str, type(None)},
}
"""What JSON may hold, by the dtype's kind. A missing number or text is null, as nothing else in JSON can tell it."""


def datatype(dtype: np.dtype) -> str:
    """The protocol's name of a dtype; BYTES for what is no number."""
    if dtype.kind == "f" and dtype.itemsize > 8:
        return "FP64"
    return _NAMES.get(dtype.newbyteorder("<"), BYTES)


def from_json(data: Any, kind: str, shape: Sequence[int]) -> np.ndarray:
    """An array of this datatype and shape. `data`: flat, or nested as the shape. Raises InvalidInput."""
    dtype = DTYPES[kind]
    cells = _whole(_flat(data, shape), dtype)
    _check_count(len(cells), shape)
    if not set(map(type, cells)) <= _JSON[dtype.kind]:
        odd = next(cell for cell in cells if type(cell) not in _JSON[dtype.kind])
        raise InvalidInput(f"a {type(odd).__name__} is no {kind}")
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if not limits.min <= min(cells) <= max(cells) <= limits.max:
            raise InvalidInput(f"a number is out of the range of {kind}")
    with np.errstate(over="ignore"):
        array = _objects(cells) if kind == BYTES else np.array(cells, dtype=dtype)
    if dtype.kind == "f" and np.isinf(array).any():
        raise InvalidInput(f"a number is out of the range of {kind}")
    return array.reshape(shape)


def from_bytes(content: bytes, kind: str, shape: Sequence[int]) -> np.ndarray:
    """An array of this datatype and shape. Raises InvalidInput."""
    dtype = DTYPES[kind]
    if kind == BYTES:
        cells = _elements(content)
        _check_count(len(cells), shape)
        return _objects(cells).reshape(shape)
    size = math.prod(shape) * (2 if kind == BF16 else dtype.itemsize)
    if len(content) != size:
        raise InvalidInput(f"{list(shape)} of {kind} are {size} bytes; got {len(content)}")
    if kind == "BOOL":
        return np.frombuffer(content, dtype="u1").astype(bool).reshape(shape)
    if kind == BF16:
        return (np.frombuffer(content, dtype="<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    return np.frombuffer(content, dtype=dtype).reshape(shape)


def to_json(array: np.ndarray) -> Any:
    """The elements in a form that orjson writes: missing and infinite numbers become null, bytes base64."""
    cells = array.ravel()
    if array.dtype.kind == "O":
        return [base64.b64encode(cell).decode() if isinstance(cell, bytes) else cell for cell in cells]
    return plain_array(cells)


def to_bytes(array: np.ndarray) -> bytes:
    """The elements as bytes; texts in UTF-8, a missing text as an empty one."""
    if array.dtype.kind != "O":
        return array.astype(DTYPES[datatype(array.dtype)], copy=False).tobytes()
    parts = [cell if isinstance(cell, bytes) else (cell or "").encode() for cell in array.ravel()]
    return b"".join(chain.from_iterable((len(part).to_bytes(4, "little"), part) for part in parts))


def to_lists(array: np.ndarray, *, encoded: bool = False) -> Any:
    """Nested lists. Bytes become base64 where they are to stay bytes (`encoded`), else text. Raises InvalidInput."""
    if array.dtype.kind != "O":
        return array.tolist()
    return _objects([_text(cell, encoded=encoded) for cell in array.ravel()]).reshape(array.shape).tolist()


def from_plain(value: Any) -> np.ndarray:
    """A tensor of parsed JSON: of numbers where all are, of texts; of JSON texts where elements are anything else."""
    cells = value if isinstance(value, list) else [value]
    shape = [len(cells)]
    while set(map(type, cells)) == {list} and len(set(map(len, cells))) == 1 and cells[0]:
        shape.append(len(cells[0]))
        cells = list(chain.from_iterable(cells))
    kinds = set(map(type, cells))
    if kinds in ({bool}, {int}):
        array = np.array(cells)
    elif kinds <= {int, float, type(None)} and kinds != {type(None)}:
        array = np.array(cells, dtype="float64")
    else:
        array = _objects([cell if cell is None or type(cell) is str else orjson.dumps(cell).decode() for cell in cells])
    return array.reshape(shape)


def _flat(data: Any, shape: Sequence[int]) -> list[Any]:
    if not isinstance(data, list):
        raise InvalidInput("data must be a list")
    if not data or not isinstance(data[0], list):
        return data
    if len(data) != shape[0]:
        raise InvalidInput(f"data is not of the shape {list(shape)}")
    for size in shape[1:]:
        if set(map(type, data)) != {list} or set(map(len, data)) != {size}:
            raise InvalidInput(f"data is not of the shape {list(shape)}")
        data = list(chain.from_iterable(data))
    cells: list[Any] = data
    return cells


def _whole(cells: list[Any], dtype: np.dtype) -> list[Any]:
    """With true for 1, and 1 for 1.0, where the dtype wants those: some clients have one type for all numbers."""
    kinds = set(map(type, cells))
    if dtype.kind == "b" and kinds != {bool}:
        return [bool(cell) if type(cell) in (int, float) and cell in (0, 1) else cell for cell in cells]
    if dtype.kind in "iu" and float in kinds:
        return [int(cell) if type(cell) is float and cell.is_integer() else cell for cell in cells]
    return cells


def _check_count(count: int, shape: Sequence[int]) -> None:
    if count != math.prod(shape):
        raise InvalidInput(f"the shape {list(shape)} has {math.prod(shape)} elements; got {count}")


def _elements(content: bytes) -> list[bytes]:
    cells, at = [], 0
    while at < len(content):
        begin = at + 4
        at = begin + int.from_bytes(content[at:begin], "little")
        cells.append(content[begin:at])
    if at != len(content):
        raise InvalidInput("its last element is cut off")
    return cells


def _objects(cells: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    return array


def _text(cell: Any, *, encoded: bool) -> Any:
    if not isinstance(cell, bytes):
        return cell
    if encoded:
        return base64.b64encode(cell).decode()
    try:
        return cell.decode()
    except UnicodeDecodeError:
        raise InvalidInput("an element is no text in UTF-8") from None
