"""A model that is ready to be asked, whatever answers for it: the original, or its compiled form."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .inputs import Convert
from .problems import InvalidInput

Predict = Callable[[Any], Any]


@dataclass(frozen=True)
class SingleRows:
    """Answers requests of one row each, sooner than arrays of one row can be made.

    `read`: from `data` to its only row as bytes; None for anything else, which is to be read otherwise. `answer`: from
    rows to the bodies of their answers; None where their numbers lead to others that are too large.
    """

    read: Callable[[Any], bytes | None]
    answer: Callable[[Sequence[bytes]], list[bytes] | None]


class NotQuick(Exception):
    """These rows are not answered in an instant, so not where other requests wait."""


@dataclass(frozen=True)
class Cost:
    """Seconds that a predict takes: for one row, and a row of many together."""

    one: float
    each: float


@dataclass(frozen=True)
class LoadedModel:
    """`read`: parsed JSON to rows; `predict`: rows to a prediction; `encode`: that to the body of an answer.

    `quick`: as `predict`, of a model that may answer in the event loop; raises NotQuick. `single`: what
    answers one row sooner than those do, if anything. `batches`: whether rows of several requests may be predicted
    together, with the same answers. `explain`: what is wrong with the data, given what predict raised for it; None
    where the model failed. `info`: the content of /metadata. `original`: the model as MLflow loads it, a PyFuncModel;
    where a form answers for it, this loads it when it is first called. `cost`: None where it is not known.
    """

    read: Convert
    predict: Predict
    encode: Callable[[Any], bytes]
    explain: Callable[[Exception, Any], InvalidInput | None]
    info: dict[str, Any]
    original: Callable[[], Any]
    quick: Predict | None = None
    single: SingleRows | None = None
    batches: bool = False
    cost: Cost | None = None
