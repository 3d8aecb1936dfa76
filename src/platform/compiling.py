"""Compiles a deploy's model: a process of its environment finds out whether a compiled form answers as the model does.

It runs as the script did, forked where that was, under limits of its own. Whatever goes wrong, the model is served as
it is.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ruamel.yaml import YAML

from ..errors import ScriptFailed, ScriptTimeout
from ..serving import ARRAY_FLAVORS, COMPILED
from ..settings import Settings
from . import environments, training
from .environments import Environment
from .script_templates import ScriptTemplates

TIMEOUT_SECONDS: Final = 60.0
"""After which a model is served as it is."""

_SCRIPT: Final = """\
import sys
from pathlib import Path

bundle = Path({bundle!r})
sys.path.insert(0, str(bundle / "server"))
from asgard_server.compiling import write

write(bundle)
"""


@dataclass(frozen=True)
class Compiler:
    """What compiling needs beside the bundle. `folder`: for the process; `token` marks all that it starts.

    `environment_vars`: what the model will serve with.
    """

    environment: Environment
    folder: Path
    token: str
    environment_vars: Mapping[str, str]
    settings: Settings
    templates: ScriptTemplates | None

    def add_to(self, bundle: Path, on_log: Callable[[str], None]) -> None:
        """Add `compiled/` to a bundle: the compiled form of its model, or why there is none."""
        if not self.settings.compile_models:
            return
        flavors = {*YAML(typ="safe").load(bundle / "model" / "MLmodel")["flavors"]} - {"python_function"}
        reason = self._run(bundle, on_log) if flavors & ARRAY_FLAVORS else _no_form(flavors)
        if reason is not None:
            shutil.rmtree(bundle / COMPILED, ignore_errors=True)
            (bundle / COMPILED).mkdir()
            (bundle / COMPILED / "about.json").write_text(json.dumps({"reason": reason}) + "\n")
        about = json.loads((bundle / COMPILED / "about.json").read_text())
        form = about.get("form")
        on_log(f"Compiled for {form}" if form else f"Served as it is: {about['reason']}")

    def _run(self, bundle: Path, on_log: Callable[[str], None]) -> str | None:
        """Why it failed; None where it did not."""
        self.folder.mkdir(parents=True)
        for name in environments.FILES:
            shutil.copyfile(bundle / "environment" / name, self.folder / name)
        try:
            training.run_script(
                _SCRIPT.format(bundle=str(bundle)).encode(),
                "compile_model.py",
                self.environment,
                self.folder,
                tracking_uri=f"file://{self.folder}",
                experiment_name="",
                token=self.token,
                environment_vars=self.environment_vars,
                settings=self.settings.model_copy(update={"training_timeout_seconds": TIMEOUT_SECONDS}),
                templates=self.templates,
                on_log=lambda _: None,
            )
        except ScriptTimeout:
            return f"Compiling it took longer than {TIMEOUT_SECONDS:g} s."
        except ScriptFailed as error:
            for line in error.log_tail[-10:]:
                on_log(line)
            return f"Compiling it failed: {error.message}"
        if not (bundle / COMPILED / "about.json").is_file():
            return "The process that compiles ended early."
        return None


def _no_form(flavors: set[str]) -> str:
    return f"There is no compiled form of models of the flavour {', '.join(sorted(flavors)) or 'python_function'}."
