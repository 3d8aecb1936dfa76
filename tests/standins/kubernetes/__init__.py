"""A stand-in for the provider plugin `kubernetes`: it works on a real API server as pulumi-kubernetes 4.34 does.

It knows the types of `types.TYPES` and is stricter than the real one: see README.md.
"""

import sys
from pathlib import Path

from .. import KUBERNETES_PLUGIN, write_launcher
from .servicer import VERSION, Servicer, serve

__all__ = ["VERSION", "Servicer", "serve", "write_executable"]


def write_executable(folder: Path) -> Path:
    """`pulumi-resource-kubernetes` in `folder`; on PATH, the CLI takes it for the plugin."""
    launcher = folder / KUBERNETES_PLUGIN
    # The plugin's own folder is where relative paths of a stack begin; only the modules are found by the checkout.
    checkout = Path(__file__).parents[3]
    write_launcher(launcher, "env", f"PYTHONPATH={checkout}", sys.executable, "-m", "tests.standins.kubernetes")
    return launcher
