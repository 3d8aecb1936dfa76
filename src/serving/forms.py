"""What a model computes, told as data: steps on columns, then trees or a linear function, then a decision.

It is computed with NumPy in the order and with the dtypes of the library that fitted the model, so that the results
are the same to the last bit. The leaves of trees, which is what takes time, are found by `bitvectors`, and by ONNX
Runtime where trees are large.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import bitvectors

Array = np.ndarray
Form = Callable[[Array], Array]
"""From an array with a row for each request's row, to another."""

LEAVES = "leaves.onnx"


class NotExportable(Exception):
    """Why there is no form of a model."""


_STEPS: dict[str, np.ufunc] = {
    "subtract": np.subtract,
    "add": np.add,
    "divide": np.divide,
    "multiply": np.multiply,
}


def scores(folder: Path, spec: Mapping[str, Any]) -> Form:
    """From rows to scores, as `spec` describes it, with its arrays from files in `folder`.

    {"steps": [[operation, name of an array], ...], "score": {"kind": "linear"} or {"kind": "trees", "trees": n,
    "input": dtype, "finder": "bitvectors" or "onnxruntime", "mean": whether the sum is divided by their number,
    "walked": whether one row alone is (see `single_rows`)}, "decide": see `decision`}
    """
    array = partial(stored, folder)
    steps = [(_STEPS[operation], array(name)) for operation, name in spec["steps"]]
    score = _linear(array) if spec["score"]["kind"] == "linear" else _trees(folder, spec["score"], array)
    if not steps:
        return score

    def after_steps(rows: Array) -> Array:
        if rows.dtype.kind != "f":
            rows = rows.astype(np.float64)
        for operation, operand in steps:
            # In place, as the library does it: rows of floats keep their dtype.
            rows = operation(rows, operand, dtype=rows.dtype, casting="same_kind")
        return score(rows)

    return after_steps


def decided(folder: Path, spec: Mapping[str, Any], score: Form) -> Form:
    """From rows to predictions; `score`: what `scores` gives."""
    decide = decision(spec["decide"], classes(folder))
    return lambda rows: decide(score(rows))


def stored(folder: Path, name: str) -> Array:
    """One of a form's arrays."""
    found: Array = np.load(folder / f"{name}.npy", allow_pickle=False)
    return found


def classes(folder: Path) -> Array | None:
    """The labels, where the form is of a classifier."""
    return stored(folder, "classes") if (folder / "classes.npy").exists() else None


def _linear(array: Callable[[str], Array]) -> Form:
    coefficients, intercept = array("coefficients").T, array("intercept")
    return lambda rows: rows @ coefficients + intercept


def _trees(folder: Path, spec: Mapping[str, Any], array: Callable[[str], Array]) -> Form:
    """Scores of shape (rows, outputs). Libraries add tree by tree, and so is done here."""
    values, start, dtype = array("values"), array("start"), np.dtype(spec["input"])
    if spec["finder"] == "bitvectors":
        find = bitvectors.finder({name: array(name) for name in bitvectors.ARRAYS})
        values = values.take(array("leaf_nodes"), axis=0)
    else:
        find = _leaf_nodes(folder, array("offsets"))
    count, mean, outputs = spec["trees"], spec["mean"], len(start)

    def form(rows: Array) -> Array:
        added = np.empty((1 + count, len(rows), outputs), values.dtype)
        added[0] = start
        values.take(find(np.ascontiguousarray(rows, dtype)), axis=0, out=added[1:], mode="clip")
        # One after the other; only a column alone would `reduce` add in another order.
        total: Array = np.add.reduce(added) if len(rows) * outputs > 1 else np.add.accumulate(added)[-1]
        return total / count if mean else total

    return form


def _leaf_nodes(folder: Path, offsets: Array) -> bitvectors.Find:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / LEAVES), options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]

    def find(rows: Array) -> Array:
        leaves: Array = session.run(outputs, {"x": rows})[0].astype(np.intp)
        leaves += offsets
        return leaves.T

    return find


def decision(decide: str, classes: Array | None) -> Form:
    """From scores to what predict gives, by one of these names.

    scores        as they are
    score         the only column
    class         of the highest score; of one score, the second class where it is above zero
    class_from    the same, where it is zero or above
    class_probable  the same, where its probability is above one half
    probability   of one score, by the logistic function
    probabilities  of the scores, by softmax
    number        of the highest score, as a score
    exponential   of the only column
    """

    def name(indices: Array) -> Array:
        assert classes is not None
        return classes.take(indices, axis=0)

    def of_scores(scores: Array) -> Array:
        several = scores.ndim == 2 and scores.shape[1] > 1
        return name(scores.argmax(axis=1) if several else (scores.ravel() > 0).astype(np.intp))

    return {
        "scores": lambda scores: scores,
        "score": lambda scores: scores[:, 0],
        "class": of_scores,
        "class_from": lambda scores: name((scores.ravel() >= 0).astype(np.intp)),
        "class_probable": lambda scores: name((_logistic(scores[:, 0]) > 0.5).astype(np.intp)),
        "probability": lambda scores: _logistic(scores[:, 0]),
        "probabilities": _softmax,
        "number": lambda scores: scores.argmax(axis=1).astype(scores.dtype),
        "exponential": lambda scores: np.exp(scores[:, 0]),
    }[decide]


def _logistic(scores: Array) -> Array:
    found: Array = 1 / (1 + np.exp(-scores))
    return found


def _softmax(scores: Array) -> Array:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: Array = raised / raised.sum(axis=1, keepdims=True)
    return found
