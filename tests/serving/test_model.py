"""What is made ready before a model is loaded."""

import os
from pathlib import Path

import pytest
from mlflow.models import Model

from asgard.serving.model import preload


@pytest.mark.parametrize(("set_to", "used"), [(None, "torch"), ("jax", "jax")])
def test_a_keras_model_is_loaded_with_the_backend_it_was_saved_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_to: str | None, used: str
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", set_to or "")  # always, so that what is set here is taken back
    if set_to is None:
        monkeypatch.delenv("KERAS_BACKEND")
    (tmp_path / "model").mkdir()
    Model(flavors={"keras": {"keras_backend": "torch"}}).save(tmp_path / "model" / "MLmodel")
    preload(tmp_path)
    assert os.environ["KERAS_BACKEND"] == used
