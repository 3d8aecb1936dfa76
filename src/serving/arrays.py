"""Arrays as JSON, without pandas."""

from typing import Any

import numpy as np
import orjson


def encode(prediction: np.ndarray) -> bytes:
    """The body `{"predictions": ...}`, as `outputs.encode` writes it."""
    return orjson.dumps({"predictions": plain_array(prediction)}, option=orjson.OPT_SERIALIZE_NUMPY)


def plain_array(array: np.ndarray) -> Any:
    """An array in a form that orjson writes: an array, a list, or a scalar that keeps its dtype."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if array.ndim == 0:
        return array[()]  # a scalar that keeps its dtype
    if kind in "biu" or (kind == "f" and size in (4, 8)):
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    if kind == "f":
        return array.astype("float32" if size < 4 else "float64")
    if kind == "M":  # tolist would give nanoseconds as integers
        texts = np.datetime_as_string(array).astype(object)
        texts[np.isnat(array)] = None
        return texts.tolist()
    return array.tolist()
