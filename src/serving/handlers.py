"""What the server answers, whatever protocol carries it: plain functions from bytes to answers."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson

from .model import LoadedModel
from .outputs import NotSerializable, encode
from .problems import Answer, InvalidInput, problem

log = logging.getLogger(__name__)

Handler = Callable[[bytes], Answer]


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked of a model. `slow`: runs the model, so not where other requests wait for it."""

    method: str
    handler: Handler
    slow: bool = False


def operations(model: LoadedModel) -> Mapping[str, Operation]:
    """The server's operations by path. What never changes is encoded here, once."""
    health = Answer(orjson.dumps({"status": "healthy", "worker_pid": os.getpid()}))
    metadata = Answer(orjson.dumps(model.info, option=orjson.OPT_NON_STR_KEYS))
    return {
        "/predict": Operation("POST", lambda body: predict(model, body), slow=True),
        "/health": Operation("GET", lambda _: health),
        "/metadata": Operation("GET", lambda _: metadata),
    }


def predict(model: LoadedModel, body: bytes) -> Answer:
    """`{"data": rows or records}` to `{"predictions": ...}`; 422 for data that does not fit, 500 for a failure."""
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
    try:
        return Answer(encode(model.predict(model.convert(content["data"]))))
    except InvalidInput as error:
        return problem(422, "invalid_data", error.detail, pointer=error.location)
    except NotSerializable as error:
        log.exception("the model's answer cannot be written as JSON")
        return problem(500, "answer_not_serializable", f"The model's answer cannot be written as JSON: {error}.")
    except Exception as error:
        refused = model.explain(error, content["data"])
        if refused is not None:
            return problem(422, "invalid_data", refused.detail, pointer=refused.location)
        log.exception("predict failed")
        return problem(
            500, "model_failed", f"The model raised {type(error).__name__}. The traceback is in the model's log."
        )
