"""Asks a model as POST /predict does, without a server."""

from collections.abc import Sequence
from typing import Any

import orjson

from asgard.serving.asking import Asking
from asgard.serving.handlers import operations
from asgard.serving.loaded import LoadedModel
from asgard.serving.messages import Answer, Request


def predict(model: LoadedModel, body: bytes) -> Answer:
    return _asking(model).one(Request(body))


def predictions(model: LoadedModel, data: Any) -> Any:
    """What it predicts for that `data`."""
    answer = predict(model, orjson.dumps({"data": data}))
    assert answer.status == 200, answer.body
    return orjson.loads(answer.body)["predictions"]


def predict_many(model: LoadedModel, bodies: Sequence[bytes]) -> list[Answer]:
    many = _asking(model).many
    assert many is not None
    return many([Request(body) for body in bodies])


def _asking(model: LoadedModel) -> Asking:
    asking = operations(model)["/predict"].model
    assert asking is not None
    return asking
