"""A model that is ready to be asked, whatever answers for it: the original, or its compiled form."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .inputs import Convert
from .problems import InvalidInput

Predict = Callable[[Any], Any]

SingleRow = Callable[[Any], bytes | None]
"""From `data` to the body of its answer; None: it is something else than one row that has a way of its own."""


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

    `quick`: as `predict`, of a model that may answer in the event loop; raises NotQuick. `single`: answers one row
    sooner than the others do; None: nothing does. `batches`: whether rows of several requests may be predicted
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
    single: SingleRow | None = None
    batches: bool = False
    cost: Cost | None = None
