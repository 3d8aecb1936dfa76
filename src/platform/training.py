"""Runs a posted script: a process of its environment's interpreter, in a clean process environment, within limits.

The interpreter is forked from one that has done the usual imports, or a fresh one where the script could tell.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Final

from uv import find_uv_bin

from .. import naming, quantities
from ..errors import ScriptFailed, ScriptOutOfMemory, ScriptTimeout
from ..settings import Settings
from . import environments, loopback, processes, script_runner
from .environments import Environment
from .script_failures import describe
from .script_output import TAIL_LINES, ScriptOutput
from .script_templates import ScriptTemplates

_LOG: Final = "output.log"
"""File beside the script's folder that keeps all it printed, as bytes: what is in the folder is the script's own."""

_HOME: Final = "home"
"""Folder beside the script's, its home."""

_SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_POLL_SECONDS: Final = 0.1
_END_SECONDS: Final = 10.0
"""How long the end of a killed tree may take before it is searched for by its marker."""

_NETWORK: Final = (
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
)  # fmt: skip
_TRACKING_CREDENTIALS: Final = (
    "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH", "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
)  # fmt: skip


def run_script(
    script: bytes,
    script_name: str,
    environment: Environment,
    folder: Path,
    *,
    tracking_uri: str,
    experiment_name: str,
    token: str,
    environment_vars: Mapping[str, str],
    settings: Settings,
    templates: ScriptTemplates | None,
    on_log: Callable[[str], None],
) -> None:
    """Run a script in `folder`, which holds pyproject.toml and uv.lock, and wait for its end; nothing it started stays.

    `templates`: what its process may be forked from; None: it is a fresh interpreter in any case.
    `token` marks its runs and logged models (tag `asgard.deployment`) and its processes. `on_log` gets each line as it
    is printed; `log_file` keeps all. pyproject.toml, uv.lock and the script are put back as they were.
    Raises ScriptFailed, ScriptOutOfMemory or ScriptTimeout with the last lines.
    """
    kept = {name: (folder / name).read_bytes() for name in environments.FILES} | {script_name: script}
    (folder / script_name).write_bytes(script)
    with _surroundings(folder, token) as surroundings, log_file(folder).open("wb") as log:
        variables = {
            **_variables(environment, surroundings, settings, tracking_uri, environment_vars),
            "MLFLOW_EXPERIMENT_NAME": experiment_name,
            "MLFLOW_RUN_CONTEXT": json.dumps({naming.TAG_DEPLOYMENT: token}),
            naming.DEPLOYMENT_VARIABLE: token,
        }
        output = ScriptOutput(log, settings.training_output_limit_bytes, on_log)
        try:
            start = partial(_start, templates, environment, folder, script_name, variables, environment_vars)
            stopped, status = _run(start, output, settings, token)
        finally:
            _put_back(folder, kept)
    if stopped is None and status is None:
        stopped = ScriptFailed(f"{script_name} could not be run to its end: the process above it died.")
    elif stopped is None and status:
        stopped = ScriptFailed(describe(script, script_name, status, [*output.tail]))
    if stopped is not None:
        stopped.log_tail = [*output.tail]
        raise stopped


def log_file(folder: Path) -> Path:
    """Of a script that runs, or ran, in this folder."""
    return folder.with_name(_LOG)


def log_tail(folder: Path) -> list[str]:
    """The last lines of what a script that ran in this folder printed."""
    with log_file(folder).open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 64 * 1024, 0))
        return file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]


def discard(folder: Path) -> None:
    """Remove the folder that a script ran in, and its home."""
    for left in (folder, folder.with_name(_HOME)):
        rmtree(left, ignore_errors=True)


def end_leftovers(token: str) -> None:
    """End whatever a dead deploy's script left running, and remove its temporary folder."""
    processes.end_marked(naming.DEPLOYMENT_VARIABLE, token)
    rmtree(_temporary(token), ignore_errors=True)


def _put_back(folder: Path, files: Mapping[str, bytes]) -> None:
    """In place of whatever stands there now: to open a pipe would wait for ever, and a link leads elsewhere."""
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            rmtree(path)
        path.unlink(missing_ok=True)
        path.write_bytes(content)


def _run(
    start: Callable[[Sequence[int]], int], output: ScriptOutput, settings: Settings, token: str
) -> tuple[ScriptFailed | None, int | None]:
    """Why the script was stopped, if it was; its wait status, if that is known. All its processes are gone.

    `start`: of a runner with these three descriptors, as script_runner.py has them; gives its process id.
    """
    (stdin, keep), (status, stdout), (printed, stderr) = os.pipe(), os.pipe(), os.pipe()
    reader = threading.Thread(target=_read, args=(printed, output), daemon=True)
    reader.start()
    try:
        try:
            pid = start((stdin, stdout, stderr))
        finally:
            for descriptor in (stdin, stdout, stderr):
                os.close(descriptor)
        stopped = _watch(pid, status, output, settings)
    finally:
        os.close(keep)
        told = _end(status, token)
        os.close(status)
    reader.join(_END_SECONDS)
    output.close()
    if stopped is None and output.passed_limit:
        stopped = _printed_too_much(settings)
    return stopped, int(told) if told else None


def _start(
    templates: ScriptTemplates | None,
    environment: Environment,
    folder: Path,
    script_name: str,
    variables: Mapping[str, str],
    posted: Collection[str],
    descriptors: Sequence[int],
) -> int:
    if templates is not None:
        pid = templates.fork(environment, folder, script_name, variables, posted, descriptors)
        if pid is not None:
            return pid
    stdin, stdout, stderr = descriptors
    runner = subprocess.Popen(
        [sys.executable, "-I", "-S", script_runner.__file__, str(environment.python), script_name],
        cwd=folder,
        env=dict(variables),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    threading.Thread(target=runner.wait, daemon=True).start()  # or it would be a zombie at its end
    return runner.pid


def _watch(pid: int, status: int, output: ScriptOutput, settings: Settings) -> ScriptFailed | None:
    """Wait for the end of the script; what to raise where it passes a limit."""
    deadline = time.monotonic() + settings.training_timeout_seconds
    memory = quantities.to_bytes(settings.training_memory_limit)
    while not _readable(status, _POLL_SECONDS):
        tree = processes.tree(pid)
        if processes.exceeds(tree, memory):
            return ScriptOutOfMemory(
                f"The script used more than {settings.training_memory_limit} of memory "
                "(ASGARD_TRAINING_MEMORY_LIMIT) and was ended."
            )
        if len(tree) > settings.training_process_limit:
            return ScriptFailed(
                f"The script had more than {settings.training_process_limit} processes at once "
                "(ASGARD_TRAINING_PROCESS_LIMIT) and was ended."
            )
        if output.passed_limit:
            return _printed_too_much(settings)
        if time.monotonic() > deadline:
            return ScriptTimeout(
                f"The script ran longer than {settings.training_timeout_seconds:g} s "
                "(ASGARD_TRAINING_TIMEOUT_SECONDS) and was ended."
            )
    return None


def _printed_too_much(settings: Settings) -> ScriptFailed:
    return ScriptFailed(
        f"The script printed more than {settings.training_output_limit_bytes} bytes "
        "(ASGARD_TRAINING_OUTPUT_LIMIT_BYTES) and was ended."
    )


def _end(status: int, token: str) -> bytes:
    """Wait for the runner, which ends the tree; where the script has hurt it, end all by their marker.

    Gives what the runner said, nothing in the latter case.
    """
    told = b""
    while _readable(status, _END_SECONDS):
        data = os.read(status, 64)
        if not data:
            break
        told += data
    if not told:
        processes.end_marked(naming.DEPLOYMENT_VARIABLE, token)
    return told


def _readable(descriptor: int, seconds: float) -> bool:
    """Whether there is something to read, or the end, within that time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def _read(descriptor: int, output: ScriptOutput) -> None:
    with open(descriptor, "rb", buffering=0) as printed:
        while data := printed.read(64 * 1024):
            output.feed(data)


@dataclass(frozen=True)
class _Surroundings:
    home: Path
    programs: Path
    temporary: Path


@contextmanager
def _surroundings(folder: Path, token: str) -> Iterator[_Surroundings]:
    """A home of the script's own, a folder with nothing but uv in it, and one for temporary files."""
    home, programs, temporary = folder.with_name(_HOME), folder.with_name("programs"), _temporary(token)
    home.mkdir(exist_ok=True)
    programs.mkdir(exist_ok=True)
    link = programs / "uv"
    link.unlink(missing_ok=True)
    link.symlink_to(find_uv_bin())
    temporary.mkdir(mode=0o700)
    try:
        yield _Surroundings(home, programs, temporary)
    finally:
        rmtree(temporary, ignore_errors=True)


def _temporary(token: str) -> Path:
    """Not in the deploy's folder: multiprocessing makes unix sockets there, whose paths may have 107 bytes."""
    return Path(tempfile.gettempdir()) / f"asgard-{token}"


def _variables(
    environment: Environment,
    surroundings: _Surroundings,
    settings: Settings,
    tracking_uri: str,
    posted: Mapping[str, str],
) -> dict[str, str]:
    """The posted ones go before what is only a default, and behind what the deploy depends on."""
    named = {name.lower() for name in posted}  # http_proxy is HTTP_PROXY by another name
    variables = {
        "LANG": os.environ.get("LANG") or "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        **{name: os.environ[name] for name in _NETWORK if os.environ.get(name) and name.lower() not in named},
        **posted,
    }
    credentials = _TRACKING_CREDENTIALS if settings.mlflow_tracking_uri is not None else ()
    return variables | {
        **{name: os.environ[name] for name in credentials if os.environ.get(name)},
        **loopback.past_proxies(variables),
        "PATH": os.pathsep.join([str(environment.path / "bin"), str(surroundings.programs), _SYSTEM_PATH]),
        "HOME": str(surroundings.home),
        "TMPDIR": str(surroundings.temporary),
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
