"""What /metadata says: what serves, with which versions, and how it was checked."""

import json
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.models import Model


def flavor(meta: "Model") -> str:
    """The library's own flavour, not the generic one that every model has."""
    return next((name for name in meta.flavors if name != "python_function"), "python_function")


def of_model(meta: "Model", health_check: str, input_example: Any) -> dict[str, Any]:
    """The part of /metadata that the MLflow model tells. `input_example`: as `data` of a request, or None."""
    signature = meta.signature.to_dict() if meta.signature is not None else None
    return {
        "flavor": flavor(meta),
        "signature": signature and {part: _parsed(text) for part, text in signature.items() if text is not None},
        "input_example": input_example,
        "health_check": health_check,
    }


def describe(model: dict[str, Any], bundle: dict[str, Any], compiled: dict[str, Any]) -> dict[str, Any]:
    """The content of /metadata. `model`: of `of_model`; `bundle`: the content of bundle.json.

    `compiled`: {"form": what answers instead of the original, or None, and "reason": why none does}.
    """
    return {
        "name": bundle["model_name"],
        "version": bundle["model_version"],
        "run_id": bundle["run_id"],
        "deployment_id": bundle["deployment_id"],
        **model,
        "compiled": compiled,
        "python_version": platform.python_version(),
        "libraries": _libraries(),
    }


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _libraries() -> dict[str, str]:
    """Every installed distribution with its version. The folder's name tells both, without opening a file in it."""
    found: dict[str, str] = {}
    for entry in sys.path:
        for info in Path(entry).glob("*.dist-info") if entry and Path(entry).is_dir() else ():
            name, _, version = info.name.removesuffix(".dist-info").partition("-")
            found.setdefault(name.replace("_", "-").lower(), version)
    return dict(sorted(found.items()))
