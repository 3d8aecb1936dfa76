"""What the server answers, whatever protocol carries it: plain functions from requests to answers."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from .loaded import Cost, LoadedModel, NotQuick, Predict
from .messages import Answer, Request
from .problems import InvalidInput, NotSerializable, problem

log = logging.getLogger(__name__)

Handler = Callable[[Request], Answer]
Many = Callable[[Sequence[Request]], list[Answer]]


@dataclass(frozen=True)
class Asking:
    """How a model is asked. `many`: several requests together, for less than one after the other; None: it cannot."""

    one: Handler
    many: Many | None


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked: of the server, which answers at once and needs no body, or of the `model`.

    `quick`: the same for the event loop; raises NotQuick. None: the model is too slow for that. `cost`: of the model.
    """

    method: str
    server: Handler | None = None
    model: Asking | None = None
    quick: Asking | None = None
    cost: Cost | None = None


def operations(model: LoadedModel) -> Mapping[str, Operation]:
    """The server's operations by path. What never changes is encoded here, once."""
    from . import scoring  # builds on this module

    health = Answer(orjson.dumps({"status": "healthy", "worker_pid": os.getpid()}))
    metadata = Answer(orjson.dumps(model.info, option=orjson.OPT_NON_STR_KEYS))
    return {
        "/predict": Operation(
            "POST",
            model=_asking(model, model.predict),
            quick=None if model.quick is None else _asking(model, model.quick),
            cost=model.cost,
        ),
        "/health": Operation("GET", lambda _: health),
        "/metadata": Operation("GET", lambda _: metadata),
        **scoring.operations(model),
    }


def not_found(path: str) -> Answer:  # noqa: ARG001 - protocols have their own
    """The answer where there is no operation."""
    return problem(404, "not_found", "There are POST /predict, GET /health and GET /metadata.")


def _asking(model: LoadedModel, run: Predict) -> Asking:
    return Asking(
        lambda request: predict(model, request.body, run),
        (lambda requests: predict_many(model, [request.body for request in requests], run)) if model.batches else None,
    )


def predict(model: LoadedModel, body: bytes, run: Predict | None = None) -> Answer:
    """`{"data": rows or records}` to `{"predictions": ...}`; 422 for data that does not fit, 500 for a failure."""
    asked = _read(model, body)
    return asked if isinstance(asked, Answer) else _answer(model, asked, run or model.predict)


def predict_many(model: LoadedModel, bodies: Sequence[bytes], run: Predict) -> list[Answer]:
    """The answers that `predict` would give. Arrays that fit together are predicted at once; a bad one fails alone."""
    asked = [_read(model, body) for body in bodies]
    alike: dict[tuple[str, tuple[int, ...]], list[tuple[int, np.ndarray]]] = {}
    for position, found in enumerate(asked):
        if isinstance(found, _Asked) and isinstance(found.rows, np.ndarray):
            alike.setdefault((found.rows.dtype.str, found.rows.shape[1:]), []).append((position, found.rows))
    together: dict[int, Answer] = {}
    for group in alike.values():
        positions, arrays = zip(*group, strict=True)
        together.update(zip(positions, _together(model, arrays, run), strict=False))
    return [
        found if isinstance(found, Answer) else together.get(position) or _answer(model, found, run)
        for position, found in enumerate(asked)
    ]


def _together(model: LoadedModel, arrays: Sequence[np.ndarray], run: Predict) -> list[Answer]:
    """An answer an array; none where they cannot be predicted together."""
    if len(arrays) < 2:
        return []
    try:
        predicted = run(np.concatenate(arrays))
        if not isinstance(predicted, np.ndarray) or predicted.ndim == 0 or len(predicted) != sum(map(len, arrays)):
            return []
        answers, begin = [], 0
        for array in arrays:
            answers.append(Answer(model.encode(predicted[begin : begin + len(array)])))
            begin += len(array)
    except Exception:  # one of them may be at fault, so each is asked alone
        return []
    return answers


@dataclass(frozen=True, slots=True)
class _Asked:
    data: Any
    rows: Any


def _read(model: LoadedModel, body: bytes) -> _Asked | Answer:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return problem(422, "not_json", f"The body is not JSON: {error}. A missing number is null.")
    if type(content) is not dict or "data" not in content:
        return problem(422, "missing_data", 'The body must be an object with the field "data".', pointer="")
    if len(content) > 1:
        extra = next(name for name in content if name != "data")
        return problem(
            422, "unknown_field", f'Unknown field {extra!r}: the body has "data" alone.', pointer=f"/{extra}"
        )
    data = content["data"]
    try:
        return _Asked(data, model.read(data))
    except Exception as error:
        return _failure(model, data, error)


def _answer(model: LoadedModel, asked: _Asked, run: Predict) -> Answer:
    try:
        return Answer(model.encode(run(asked.rows)))
    except NotQuick:
        raise
    except Exception as error:
        return _failure(model, asked.data, error)


def _failure(model: LoadedModel, data: Any, error: Exception) -> Answer:
    if isinstance(error, InvalidInput):
        return problem(422, "invalid_data", error.detail, pointer=error.location)
    if isinstance(error, NotSerializable):
        log.error("the model's answer cannot be written as JSON", exc_info=error)
        return problem(500, "answer_not_serializable", f"The model's answer cannot be written as JSON: {error}.")
    refused = model.explain(error, data)
    if refused is not None:
        return problem(422, "invalid_data", refused.detail, pointer=refused.location)
    log.error("predict failed", exc_info=error)
    return problem(
        500, "model_failed", f"The model raised {type(error).__name__}. The traceback is in the model's log."
    )
