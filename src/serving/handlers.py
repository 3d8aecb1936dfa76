"""What the server answers, whatever protocol carries it: plain functions from requests to answers."""

import os
from typing import Any

import orjson

from . import asking, inference_protocol, openapi, scoring
from .asking import Failure, Operation, Protocol, Refused, Write
from .loaded import LoadedModel
from .messages import PROBLEM_JSON, Answer, Request
from .metrics import CONTENT_TYPE, Metrics
from .problems import problem


def operations(model: LoadedModel) -> dict[str, Operation]:
    """The server's operations by path, all but /metrics. What never changes is encoded here, once."""
    health = Answer(orjson.dumps({"status": "healthy", "worker_pid": os.getpid()}))
    metadata = Answer(orjson.dumps(model.info, option=orjson.OPT_NON_STR_KEYS))
    found = {
        "/predict": asking.operation(model, _protocol(model)),
        "/health": Operation("GET", lambda _: health),
        "/metadata": Operation("GET", lambda _: metadata),
        **inference_protocol.operations(model),
        **scoring.operations(model),
    }
    paths = {path: operation.method for path, operation in found.items()}
    paths |= dict.fromkeys(("/metrics", "/openapi.json", "/docs"), "GET")
    document = Answer(orjson.dumps(openapi.document(model.info, paths)))
    page = Answer(openapi.page(model.info).encode(), content_type=b"text/html; charset=utf-8")
    return {
        **found,
        "/openapi.json": Operation("GET", lambda _: document),
        "/docs": Operation("GET", lambda _: page),
    }


def metrics_operation(metrics: Metrics) -> Operation:
    """What Prometheus asks."""
    return Operation("GET", lambda _: Answer(metrics.text(), content_type=CONTENT_TYPE))


def not_found(path: str) -> Answer:
    """The answer where there is no operation."""
    if inference_protocol.owns(path):
        return inference_protocol.error(404, f"There is no {path} here.")
    return problem(404, "not_found", "There is POST /predict; GET /openapi.json tells of all, GET /docs is a page.")


def told(path: str, answer: Answer) -> Answer:
    """The answer as the path's protocol tells it, where it is a problem that knows nothing of protocols."""
    if answer.content_type == PROBLEM_JSON and inference_protocol.owns(path):
        return inference_protocol.error(answer.status, orjson.loads(answer.body)["detail"], answer.headers)
    return answer


def _protocol(model: LoadedModel) -> Protocol:
    """`{"data": ...}` to `{"predictions": ...}`; 422 for data that does not fit, 500 for a failure."""

    def write(prediction: Any) -> Answer:
        return Answer(model.encode(prediction))

    def parse(request: Request) -> tuple[Any, Write]:
        return _data(request.body), write

    return Protocol(parse, _failed, model.single)


def _data(body: bytes) -> Any:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        detail = f"The body is not JSON: {error}. A missing number is null."
        raise Refused(Failure(422, "not_json", detail)) from error
    if type(content) is not dict or "data" not in content:
        raise Refused(Failure(422, "missing_data", 'The body must be an object with the field "data".', pointer=""))
    if len(content) > 1:
        extra = next(name for name in content if name != "data")
        detail = f'Unknown field {extra!r}: the body has "data" alone.'
        raise Refused(Failure(422, "unknown_field", detail, pointer=f"/{extra}"))
    return content["data"]


def _failed(failure: Failure) -> Answer:
    return problem(failure.status, failure.code, failure.detail, pointer=failure.pointer)
