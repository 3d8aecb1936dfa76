"""Compiles a deploy's model: a process of its environment finds out whether a compiled form answers as it does.

The process begins to import while the script still runs, so that little is left to do afterwards. It sees what a script
sees, without the tracking server. Whatever goes wrong in it, the model is served as it is.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

import psutil

from .. import naming, quantities
from ..serving import COMPILED
from ..settings import Settings
from . import bundle, processes
from .environments import Environment

TIMEOUT_SECONDS: Final = 60.0
"""After which a model is served as it is."""

_POLL_SECONDS: Final = 0.02


class Compile(Protocol):
    """Adds `compiled/` to a bundle."""

    def __call__(self, folder: Path, *, on_log: Callable[[str], None]) -> None: ...


@contextmanager
def compiler(
    environment: Environment, folder: Path, token: str, environment_vars: Mapping[str, str], settings: Settings
) -> Iterator[Compile]:
    """What compiles one bundle, ready as soon as its process is; that is gone after the block.

    `folder`: the deploy's. `token` marks its processes, `environment_vars` are what the model will serve with.
    """
    if not settings.compile_models:
        yield _off
        return
    package, home = folder / "compiler", folder / "compiler-home"
    bundle.copy_server(package)
    home.mkdir()
    variables = {
        "PATH": f"{environment.path / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "LANG": os.environ.get("LANG") or "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **environment_vars,
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(package), environment_vars.get("PYTHONPATH")))),
        naming.DEPLOYMENT_VARIABLE: token,
    }
    with (home / "output.log").open("wb") as log:
        process = subprocess.Popen(
            [environment.python, "-m", "asgard_server.compiling"],
            cwd=home,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield lambda folder, *, on_log: _compile(process, home, folder, settings, on_log)
    finally:
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        processes.end_marked(naming.DEPLOYMENT_VARIABLE, token)


def _off(folder: Path, *, on_log: Callable[[str], None]) -> None:  # noqa: ARG001 - the protocol's
    return


def _compile(
    process: subprocess.Popen[bytes], home: Path, folder: Path, settings: Settings, on_log: Callable[[str], None]
) -> None:
    reason = _run(process, folder, settings)
    if reason is not None:
        for line in (home / "output.log").read_text(errors="replace").splitlines()[-10:]:
            on_log(line)
        shutil.rmtree(folder / COMPILED, ignore_errors=True)
        (folder / COMPILED).mkdir()
        (folder / COMPILED / "about.json").write_text(json.dumps({"reason": reason}) + "\n")
    about = json.loads((folder / COMPILED / "about.json").read_text())
    form = about.get("form")
    on_log(f"Compiled for {form}" if form else f"Served as it is: {about['reason']}")


def _run(process: subprocess.Popen[bytes], folder: Path, settings: Settings) -> str | None:
    """Why it failed, None where it did not."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    memory = quantities.to_bytes(settings.training_memory_limit)
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(f"{folder}\n".encode())
        process.stdin.flush()
    while process.poll() is None:
        if time.monotonic() > deadline:
            return f"Compiling it took longer than {TIMEOUT_SECONDS:g} s."
        if processes.exceeds([psutil.Process(process.pid), *processes.tree(process.pid)], memory):
            return f"Compiling it took more than {settings.training_memory_limit} of memory."
        time.sleep(_POLL_SECONDS)
    if process.returncode or not (folder / COMPILED / "about.json").is_file():
        return "The process that compiles ended early."
    return None
