"""What tests use in place of things that are not to be had everywhere. README.md says what stands in for what."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LANGUAGE_HOST = "pulumi-language-python"
EXECUTOR = "pulumi-language-python-exec"
KUBERNETES_PLUGIN = "pulumi-resource-kubernetes"


def path_with_cli(cli: Path, folder: Path) -> str:
    """A PATH on which the given Pulumi CLI is found with a Python language host: its own, else the stand-in.

    First on it are the executables of the environment that runs the tests (`pulumi-resource-asgard`). `folder`: where
    the stand-in's launcher is put.
    """
    entries = [str(Path(sys.executable).parent), str(cli.parent)]
    if not (cli.resolve().parent / LANGUAGE_HOST).exists() and shutil.which(LANGUAGE_HOST) is None:
        entries.append(str(_language_host(cli, folder)))
    return os.pathsep.join([*entries, os.environ.get("PATH", os.defpath)])


@contextmanager
def kubernetes_provider(kubeconfig: Path) -> Iterator[list[str]]:
    """What `PULUMI_DEBUG_PROVIDERS` names for it: the stand-in, or nothing where the plugin itself is on PATH."""
    if shutil.which(KUBERNETES_PLUGIN):
        yield []
        return
    from . import kubernetes

    server, port = kubernetes.serve({"KUBECONFIG": str(kubeconfig)})
    yield [f"kubernetes:{port}"]
    server.stop(None)


def _language_host(cli: Path, folder: Path) -> Path:
    executor = cli.resolve().parent / EXECUTOR
    assert executor.exists(), (
        f"{cli} has neither {LANGUAGE_HOST} nor {EXECUTOR} beside it: take it off PATH for one that is whole."
    )
    host = Path(__file__).parent / "language_host" / "host.py"
    write_launcher(folder / LANGUAGE_HOST, sys.executable, str(host), "--use-executor", str(executor))
    return folder


def write_launcher(path: Path, *command: str) -> None:
    """Make an executable that runs the command with its own arguments; a `#!` line takes no path with a space."""
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o755)
