"""Asks a model as POST /predict does, without a server."""

from collections.abc import Sequence

from asgard.serving.asking import Asking
from asgard.serving.handlers import operations
from asgard.serving.loaded import LoadedModel
from asgard.serving.messages import Answer, Request


def predict(model: LoadedModel, body: bytes) -> Answer:
    return _asking(model).one(Request(body))


def predict_many(model: LoadedModel, bodies: Sequence[bytes]) -> list[Answer]:
    many = _asking(model).many
    assert many is not None
    return many([Request(body) for body in bodies])


def _asking(model: LoadedModel) -> Asking:
    asking = operations(model)["/predict"].model
    assert asking is not None
    return asking
