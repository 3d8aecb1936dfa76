"""Saves a model that MLflow's default format refuses in the one that was the default before.

Copied into every environment; its interpreters run it at start.

Later releases of MLflow 3 save scikit-learn and LightGBM models with skops, which refuses gradient boosting, column
transformers and functions of a script's own, and PyTorch models with torch.export, which wants an input example. A
script that logs such a model without naming a format would fail where it ran for years. Standard library only.
"""

import sys
from typing import Any

_FORMER = {"mlflow.sklearn": "cloudpickle", "mlflow.lightgbm": "cloudpickle", "mlflow.pytorch": "pickle"}
"""By flavour: the value of `serialization_format` that MLflow took where none was given."""


class _AfterImport:
    """An import finder that wraps the flavours as they are loaded."""

    def __init__(self) -> None:
        self._pending = dict(_FORMER)

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:  # noqa: ARG002 - the protocol's
        former = self._pending.pop(name, None)
        if former is None:
            return None
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_wrap(module: Any) -> None:
                load(module)
                _wrap(module, former)

            spec.loader.exec_module = load_and_wrap  # type: ignore[method-assign]
        return spec


def _wrap(flavor: Any, former: str) -> None:
    choose, save = getattr(flavor, "_get_default_serialization_format", None), flavor.save_model
    if choose is None:  # an MLflow whose default is the former one
        return
    from functools import wraps
    from threading import local

    chosen = local()
    """`by_mlflow`: `log_model`, which calls `save_model`, was given no format."""

    @wraps(choose)
    def choose_and_note(*args: Any, **kwargs: Any) -> Any:
        chosen.by_mlflow = True
        return choose(*args, **kwargs)

    @wraps(save)
    def save_model(*args: Any, **kwargs: Any) -> Any:
        by_mlflow = kwargs.get("serialization_format") is None or getattr(chosen, "by_mlflow", False)
        try:
            if not by_mlflow or kwargs.get("export_model"):
                return save(*args, **kwargs)
            return _save(save, former, args, kwargs)
        finally:
            chosen.by_mlflow = False

    flavor._get_default_serialization_format = choose_and_note
    flavor.save_model = save_model


def _save(save: Any, former: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from inspect import signature
    from logging import getLogger
    from pathlib import Path
    from shutil import rmtree

    folder = Path(signature(save).bind(*args, **kwargs).arguments["path"])
    occupied = folder.exists() and any(folder.iterdir())  # which MLflow refuses
    try:
        return save(*args, **kwargs)
    except Exception as error:
        if occupied:
            raise
        getLogger("mlflow").warning("Saving with %s, as MLflow's default format refuses the model: %s", former, error)
    rmtree(folder, ignore_errors=True)
    return save(*args, **{**kwargs, "serialization_format": former})


sys.meta_path.insert(0, _AfterImport())
