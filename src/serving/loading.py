"""A bundle's model: its compiled form where it has one that this environment can run, else the original."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import COMPILED
from .loaded import LoadedModel

log = logging.getLogger(__name__)


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


def load(bundle: Path) -> LoadedModel:
    """Load and check. Raises HealthCheckFailed, or whatever loading raised."""
    found = about(bundle)
    # Each is imported only where it is used: the form needs neither MLflow nor the model's own libraries.
    if found.get("form"):
        from . import compiled

        return compiled.load(bundle, found)
    from . import model

    return model.load(bundle, found)
