"""A bundle's model: its compiled form where it has one that this environment can run, else the original."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import COMPILED
from .loaded import LoadedModel

log = logging.getLogger(__name__)

_OF_THE_SCRIPT = re.compile(r"Can't get attribute '([^']+)' on <module '[^']*__main__'")
"""What pickle raises for a class of the module `__main__`."""


def about(bundle: Path) -> Mapping[str, Any]:
    """What compiling found out; empty where the bundle was made without."""
    try:
        found: Mapping[str, Any] = json.loads((bundle / COMPILED / "about.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def preload(bundle: Path) -> None:
    """Import what loading the bundle's model will import. What fails here is left for `load` to report."""
    if about(bundle).get("form"):
        from . import compiled

        compiled.preload(about(bundle))
    else:
        from . import model

        model.preload(bundle)


def reason(error: BaseException) -> str:
    """Why loading failed, in sentences."""
    said = f"The model cannot be loaded: {type(error).__name__}: {str(error).rstrip('.')}."
    if isinstance(error, AttributeError) and (named := _OF_THE_SCRIPT.search(str(error))):
        said += (
            f" `{named[1]}` is defined in the training script, which a server does not run: write it into a module that"
            " is logged with the model (`code_paths`), or have the model saved by cloudpickle."
        )
    if isinstance(error, FileNotFoundError):
        said += (
            " Only what is logged with the model is there when it serves: give the file to `log_model` as one of its"
            " `artifacts`, and read it from `context.artifacts`."
        )
    if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
        said += (
            " A model is served away from MLflow: what it reads there, such as another model, give to `log_model` as"
            ' one of its `artifacts` (`artifacts={"base": uri}`), and load it from `context.artifacts["base"]`.'
        )
    return said


def load(bundle: Path) -> LoadedModel:
    """Load and check. Raises HealthCheckFailed, or whatever loading raised."""
    found = about(bundle)
    # Each is imported only where it is used: the form needs neither MLflow nor the model's own libraries.
    if found.get("form"):
        from . import compiled

        return compiled.load(bundle, found)
    from . import model

    return model.load(bundle, found)
