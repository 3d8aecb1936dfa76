"""Byte code for an image, compiled here: with a read-only root a container could not keep what it compiles."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...errors import InfrastructureFailed
from .. import pythons
from ..uv_tool import OnLog
from . import base as bases
from .base import Base
from .contents import TELL_RELEASE, command

_PROGRAM: Final = Path(__file__).with_name("compile_all.py")
_SECONDS: Final = 900


@dataclass(frozen=True)
class Compiler:
    """A Python, how to run it and in which environment. `release`: as in `3.11.9`; others compile differently."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    release: str


def path_in(base: Base, python: str) -> str:
    """Where an image has this Python, as in `3.11`. Raises InfrastructureFailed."""
    found = base.contents.pythons.get(python)
    if found is None:
        raise InfrastructureFailed(
            f"The base image {base.reference} has Python {', '.join(sorted(base.contents.pythons))}; the model needs "
            f"{python}. Set ASGARD_BASE_IMAGE to one that has it.",
            reason="UnfitBaseImage",
        )
    return found.path


def compiler(base: Base, python: str, cache_dir: Path, on_log: OnLog) -> Compiler:
    """The base image's own Python, so that any machine compiles the same; else one of this machine.

    Raises InfrastructureFailed and EnvironmentUnavailable.
    """
    path = path_in(base, python)
    release = base.contents.pythons[python].release
    if release is not None and (found := command(bases.folder(cache_dir, base.reference), path)):
        return Compiler(*found, release)
    interpreter = pythons.needed(python, "The image needs", on_log)
    done = subprocess.run([interpreter, "-S", "-c", TELL_RELEASE], env={}, capture_output=True, text=True, check=True)
    return Compiler((str(interpreter),), {}, done.stdout.strip())


def compile_tree(compiler: Compiler, folder: Path, prefix: str) -> None:
    """Compile all modules below a folder. `prefix`: the folder in the image. What is no Python is left alone.

    Raises InfrastructureFailed.
    """
    for cache in sorted(folder.rglob("__pycache__")):
        shutil.rmtree(cache)
    process = subprocess.Popen(
        [*compiler.command, "-S", "-W", "ignore", "-c", _PROGRAM.read_text(), folder, prefix, str(os.cpu_count() or 1)],
        env={**compiler.environment, "PYTHONHASHSEED": "0"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=_SECONDS)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)  # with the processes among which it shares the work
        process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        said = f"not done after {_SECONDS} s"
    if process.returncode:
        raise InfrastructureFailed(
            "Byte code for the image could not be compiled; is the disk full?",
            reason="CompileFailed",
            log_tail=said.splitlines()[-20:],
        )
