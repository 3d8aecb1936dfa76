"""How a model is asked, whatever protocol tells the question: one request, or several that are predicted together."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .loaded import Cost, LoadedModel, NotQuick, Predict, SingleRows
from .messages import Answer, Request
from .problems import InvalidInput, NotSerializable

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


@dataclass(frozen=True)
class Failure:
    """Why there is no prediction. `status`: 422 or 500; `code`, `detail`, `pointer`: as in `problems.problem`."""

    status: int
    code: str
    detail: str
    pointer: str | None = None


class Refused(Exception):
    """A request that its protocol does not allow."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


Write = Callable[[Any], Answer]
"""From a prediction to the answer. Raises Refused, or NotSerializable."""


@dataclass(frozen=True)
class Protocol:
    """`parse`: from a request to `data` as `LoadedModel.read` takes it, and to how its prediction is written.

    `parse` raises Refused or InvalidInput; `failed` is the answer where there is no prediction. `single`: the model's,
    where its bodies are those of the protocol.
    """

    parse: Callable[[Request], tuple[Any, Write]]
    failed: Callable[[Failure], Answer]
    single: SingleRows | None = None


def operation(model: LoadedModel, protocol: Protocol) -> Operation:
    """POST that asks the model for a prediction."""
    return Operation(
        "POST",
        model=_asking(model, protocol, model.predict),
        quick=None if model.quick is None else _asking(model, protocol, model.quick),
        cost=model.cost,
    )


def _asking(model: LoadedModel, protocol: Protocol, run: Predict) -> Asking:
    return Asking(
        partial(ask, model, protocol, run), partial(ask_many, model, protocol, run) if model.batches else None
    )


def ask(model: LoadedModel, protocol: Protocol, run: Predict, request: Request) -> Answer:
    """The answer to one request. `run`: the model's `predict` or `quick`; raises NotQuick where that does."""
    (asked,) = _read(model, protocol, [request])
    return asked if isinstance(asked, Answer) else _answer(model, protocol, asked, run)


def ask_many(model: LoadedModel, protocol: Protocol, run: Predict, requests: Sequence[Request]) -> list[Answer]:
    """The answers that `ask` would give. Arrays that fit together are predicted at once; a bad one fails alone."""
    asked = _read(model, protocol, requests)
    alike: dict[tuple[str, tuple[int, ...]], list[tuple[int, _Asked]]] = {}
    for position, found in enumerate(asked):
        if isinstance(found, _Asked) and isinstance(found.rows, np.ndarray):
            alike.setdefault((found.rows.dtype.str, found.rows.shape[1:]), []).append((position, found))
    together: dict[int, Answer] = {}
    for group in alike.values():
        positions, members = zip(*group, strict=True)
        together.update(zip(positions, _together(members, run), strict=False))
    return [
        found if isinstance(found, Answer) else together.get(position) or _answer(model, protocol, found, run)
        for position, found in enumerate(asked)
    ]


@dataclass(frozen=True, slots=True)
class _Asked:
    data: Any
    rows: Any
    write: Write


def _read(model: LoadedModel, protocol: Protocol, requests: Sequence[Request]) -> list[_Asked | Answer]:
    """What is to be predicted for each request, or its answer: of one that is refused, or of a single row."""
    single = protocol.single
    found: list[_Asked | Answer | None] = []
    alone: list[tuple[int, Any, Write]] = []
    packed: list[bytes] = []
    for request in requests:
        try:
            data, write = protocol.parse(request)
        except Exception as error:
            found.append(protocol.failed(failure(model, None, error)))
            continue
        row = None if single is None else single.read(data)
        if row is None:
            found.append(_rows(model, protocol, data, write))
        else:
            alone.append((len(found), data, write))
            packed.append(row)
            found.append(None)
    bodies = single.answer(packed) if single is not None and packed else None
    for number, (place, data, write) in enumerate(alone):
        found[place] = _rows(model, protocol, data, write) if bodies is None else Answer(bodies[number])
    return [one for one in found if one is not None]


def _rows(model: LoadedModel, protocol: Protocol, data: Any, write: Write) -> _Asked | Answer:
    try:
        return _Asked(data, model.read(data), write)
    except Exception as error:
        return protocol.failed(failure(model, data, error))


def _together(asked: Sequence[_Asked], run: Predict) -> list[Answer]:
    """An answer each; none where they cannot be predicted together."""
    if len(asked) < 2:
        return []
    try:
        predicted = run(np.concatenate([one.rows for one in asked]))
        total = sum(len(one.rows) for one in asked)
        if not isinstance(predicted, np.ndarray) or predicted.ndim == 0 or len(predicted) != total:
            return []
        answers, begin = [], 0
        for one in asked:
            answers.append(one.write(predicted[begin : begin + len(one.rows)]))
            begin += len(one.rows)
    except Exception:  # one of them may be at fault, so each is asked alone
        return []
    return answers


def _answer(model: LoadedModel, protocol: Protocol, asked: _Asked, run: Predict) -> Answer:
    try:
        return asked.write(run(asked.rows))
    except NotQuick:
        raise
    except Exception as error:
        return protocol.failed(failure(model, asked.data, error))


def failure(model: LoadedModel, data: Any, error: Exception) -> Failure:
    """What an exception means to whoever sent `data`. What is not their fault goes to the log with its traceback."""
    if isinstance(error, Refused):
        return error.failure
    if isinstance(error, InvalidInput):
        return Failure(422, "invalid_data", error.detail, error.location)
    if isinstance(error, NotSerializable):
        log.error("the model's answer cannot be written as JSON", exc_info=error)
        return Failure(500, "answer_not_serializable", f"The model's answer cannot be written as JSON: {error}.")
    refused = model.explain(error, data)
    if refused is not None:
        return Failure(422, "invalid_data", refused.detail, refused.location)
    log.error("predict failed", exc_info=error)
    told = f"The model raised {type(error).__name__}. The traceback is in the model's log."
    return Failure(500, "model_failed", told)
