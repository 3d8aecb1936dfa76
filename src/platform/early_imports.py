"""Imports NumPy and scipy.special just before MLflow. Copied into every environment; its interpreters run it at start.

skops, with which MLflow saves and loads scikit-learn models, looks up each ufunc in all of sys.modules, from the front:
with these two ahead of MLflow's thousand modules that takes milliseconds instead of seconds. Standard library only.
"""

import sys


class _BeforeMlflow:
    """An import finder that finds nothing."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 - the protocol's
        if name == "mlflow":
            sys.meta_path.remove(self)
            try:
                import numpy  # noqa: F401
                import scipy.special  # type: ignore[import-untyped]  # noqa: F401
            except Exception:  # noqa: S110 - whoever really needs them gets to see it
                pass


sys.meta_path.insert(0, _BeforeMlflow())
