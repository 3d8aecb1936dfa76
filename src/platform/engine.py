"""The Pulumi engine: one stack per model, driven inline through the Automation API.

Only `up`, `refresh` and `destroy` start the CLI; the extra calls that `auto.Stack` makes around them cost more than
they do (docs/performance.md).
"""

import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import psutil
from pulumi import automation as auto
from pulumi.automation.errors import CommandError, ConcurrentUpdateError, StackAlreadyExistsError, StackNotFoundError

from .. import naming
from ..errors import AsgardError, DeployInProgress, InfrastructureFailed, InfrastructureTimeout
from ..serving.desired import ApplyFailed
from ..settings import Settings
from ..stacks.program import program
from . import pending, secrets, stackfile
from .inline import InlineProgram

_WITHOUT_PLUGINS = {"PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true", "PULUMI_IGNORE_AMBIENT_PLUGINS": "true"}
"""No time is spent on looking for plugins, nor on telling that there are some on PATH."""

PROJECT_FILES = {
    "Pulumi.yaml": f"""\
name: {naming.PROJECT}
description: One stack a model. Asgard writes the stack files; edit them, review them, and run `pulumi up`.
runtime:
  name: python
  options:
    toolchain: pip
main: .
""",
    "__main__.py": """\
from asgard.stacks.program import program

program()
""",
}


def write_project(stacks_dir: Path) -> None:
    """Write what the folder lacks to be a Pulumi project; what is there stays."""
    stacks_dir.mkdir(parents=True, exist_ok=True)
    for name, text in PROJECT_FILES.items():
        if not (stacks_dir / name).exists():
            (stacks_dir / name).write_text(text)


def cli_environment(settings: Settings) -> dict[str, str]:
    """Environment variables with which plain `pulumi` works on the models' stacks, in the stacks folder."""
    if settings.backend_url.startswith("file://"):
        Path(settings.backend_url.removeprefix("file://")).mkdir(parents=True, exist_ok=True)
    home = settings.data_dir / "pulumi-home"
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PULUMI_BACKEND_URL": settings.backend_url,
        "PULUMI_HOME": str(home),
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(secrets.passphrase_file(settings)),
        "PULUMI_PYTHON_CMD": sys.executable,
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
        # The CLI is short-lived: a fifth of its start is collecting garbage (https://pkg.go.dev/runtime).
        "GOGC": os.environ.get("GOGC", "400"),
        "ASGARD_DATA_DIR": str(settings.data_dir),
        "ASGARD_CACHE_DIR": str(settings.cache_dir),
        "ASGARD_STACKS_DIR": str(settings.stacks_dir),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }


_STATE_ENDS = (".json", ".json.gz")
"""Of a state's file in a file backend."""

_WRITING_SECONDS = 10.0
"""A lock that is still being written after that time was left so, by a full disk or a `kill -9`."""

_LOCK_GONE = re.compile(r"\.pulumi/locks/.*(NotFound|no such file)")
"""What the CLI says of a lock that it cannot read any more, in an object store or in a folder."""


class _Stack(auto.Stack):
    """A stack without the calls around each operation: select before it, outputs and history after it."""

    def __init__(self, name: str, workspace: auto.LocalWorkspace, program: Callable[[], None]) -> None:
        self.name = name
        self.workspace = workspace
        self._mode = None  # type: ignore[assignment]
        self._program = workspace.program = InlineProgram(program)

    def _run_pulumi_cmd_sync(self, *args: Any) -> auto.CommandResult:
        try:
            return super()._run_pulumi_cmd_sync(*args)
        finally:
            self._program.end()

    def outputs(self) -> Any:
        return {}

    def info(self, show_secrets: bool = True) -> Any:  # noqa: ARG002
        return object()


@dataclass
class _Watch:
    """What the engine's events and the provider say of one operation."""

    on_log: Callable[[str], None]
    outputs: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    failure: InfrastructureFailed | None = None

    def __call__(self, event: auto.EngineEvent) -> None:
        if event.diagnostic_event is not None:
            diagnostic = event.diagnostic_event
            if diagnostic.severity == "error" and diagnostic.message.strip():
                self.errors.append(diagnostic.message.strip())
        elif event.resource_pre_event is not None:
            step = event.resource_pre_event.metadata
            if step.op not in (auto.OpType.SAME, auto.OpType.READ, auto.OpType.REFRESH):
                self.on_log(f"{step.op.value} {step.type}")
        elif event.res_outputs_event is not None:
            step = event.res_outputs_event.metadata
            if step.type == "pulumi:pulumi:Stack" and step.new is not None:
                self.outputs = dict(step.new.outputs or {})


class Watches:
    """Connects the provider in this process with the operation that drives it, by model."""

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}

    @contextmanager
    def open(self, model: str, on_log: Callable[[str], None]) -> Iterator[_Watch]:
        watch = self._watches[model] = _Watch(on_log)
        try:
            yield watch
        finally:
            self._watches.pop(model, None)

    def log(self, model: str, line: str) -> None:
        """A line of progress from the provider."""
        if model in self._watches:
            self._watches[model].on_log(line)

    def failed(self, model: str, error: ApplyFailed | InfrastructureFailed) -> None:
        """Why the provider could not do what it was asked."""
        if model in self._watches:
            self._watches[model].failure = _infrastructure_error(error)


class Engine:
    """Brings stacks up and down. Different models may be driven at the same time."""

    def __init__(
        self, settings: Settings, command: auto.PulumiCommand, providers: Mapping[str, int], watches: Watches
    ) -> None:
        """`providers`: name of each provider that is attached in process, and its port; they report to `watches`."""
        self._settings = settings
        self._command = command
        self._watches = watches
        attached = [f"{name}:{port}" for name, port in providers.items()]
        if ambient := os.environ.get("PULUMI_DEBUG_PROVIDERS"):
            attached.append(ambient)
        self._environment = {**cli_environment(settings), "PULUMI_DEBUG_PROVIDERS": ",".join(attached)}
        self._locks = self._stacks = None
        if settings.backend_url.startswith("file://"):
            backend = Path(settings.backend_url.removeprefix("file://")) / ".pulumi"
            self._locks = backend / "locks" / "organization" / naming.PROJECT
            self._stacks = backend / "stacks" / naming.PROJECT
        write_project(settings.stacks_dir)

    def up(self, model: str, *, token: str, on_log: Callable[[str], None], refresh: bool = False) -> dict[str, Any]:
        """Make the stack be what its file says; gives its outputs. Raises InfrastructureFailed, DeployInProgress.

        `token`: marks the engine's process, so that it can be found should this process die. `refresh`: it first reads
        what really is, as after another that failed.
        """
        stack = self._stack(model, token)
        if self._is_missing(model):
            self._init(model, token)
        elif refresh and self._needs_plugins(model):
            with suppress(StackNotFoundError):
                self._corrected(model, token, pending.taken_back)
        # The program says how the cluster is reached now; the state, how it was.
        anew = (refresh and model == naming.PLATFORM_STACK) or None
        with self._watches.open(model, on_log) as watch:
            try:
                self._run(model, watch, lambda: stack.up(on_event=watch, refresh=refresh or None, run_program=anew))
            except StackNotFoundError:
                self._init(model, token)
                self._run(model, watch, lambda: stack.up(on_event=watch))
        return watch.outputs

    def destroy(self, model: str, *, token: str, on_log: Callable[[str], None]) -> bool:
        """Take down all that the stack made, and the stack; its file stays. False: there was no such stack."""
        stack = self._stack(model, token)
        try:
            with self._watches.open(model, on_log) as watch:
                self._run(model, watch, lambda: stack.destroy(on_event=watch))
            self._pulumi(["stack", "rm", "--yes", "--preserve-config", "--stack", model], model, token)
        except StackNotFoundError:
            return False
        return True

    def outputs(self, model: str, *, token: str) -> dict[str, Any]:
        """The stack's outputs as recorded, secrets masked; empty where there is no such stack, or none was exported."""
        if self._is_missing(model):
            return {}
        try:
            found: dict[str, Any] = json.loads(
                self._pulumi(["stack", "output", "--json", "--stack", model], model, token)
            )
        except StackNotFoundError:
            return {}
        return found

    def recover(self, model: str, *, token: str) -> None:
        """After an operation died: bring the state in line with what really is. Its processes have been ended."""
        stack = self._stack(model, token)
        with self._watches.open(model, lambda _: None) as watch, suppress(StackNotFoundError):
            if self._locks is None:
                self._pulumi(["cancel", "--yes", "--stack", model], model, token)
            self._corrected(model, token, pending.taken_over)
            self._run(model, watch, lambda: stack.refresh(on_event=watch))

    @staticmethod
    def give_up(token: str) -> None:
        """Let the operation with that token, of this process, end: what is under way stops waiting, and it fails."""
        for process in psutil.Process().children():
            with suppress(psutil.Error):
                if process.environ().get(naming.DEPLOYMENT_VARIABLE) == token:
                    process.send_signal(signal.SIGINT)

    def free_dead_lock(self, model: str) -> None:
        """Take away the stack's lock where the process that took it, on this machine, is gone. File backend only.

        So are halves of locks, on which every operation of the CLI would fail.
        """
        if self._locks is None:
            return
        for path in (self._locks / model).glob("*.tmp"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _WRITING_SECONDS:
                    path.unlink()
        for path in (self._locks / model).glob("*.json"):
            with suppress(FileNotFoundError):  # freed as it is read
                lock = json.loads(path.read_text())
                if lock["hostname"] == socket.gethostname() and not _is_alive(lock["pid"], lock["timestamp"]):
                    path.unlink(missing_ok=True)
                    path.with_name(f"{path.name}.attrs").unlink(missing_ok=True)

    def _corrected(self, model: str, token: str, correct: Callable[[dict[str, Any]], bool]) -> None:
        """Write the stack's state anew where `correct` changes it, which says so. Raises StackNotFoundError."""
        state = json.loads(self._pulumi(["stack", "export", "--stack", model], model, token))
        if correct(state):
            with NamedTemporaryFile("w", suffix=".json") as file:
                json.dump(state, file)
                file.flush()
                self._pulumi(["stack", "import", "--file", file.name, "--stack", model], model, token)

    def _workspace(self, model: str, token: str) -> auto.LocalWorkspace:
        return auto.LocalWorkspace(
            work_dir=str(self._settings.stacks_dir),
            pulumi_command=self._command,
            env_vars={
                **self._environment,
                **({} if self._needs_plugins(model) else _WITHOUT_PLUGINS),
                naming.DEPLOYMENT_VARIABLE: token,
            },
        )

    def _needs_plugins(self, model: str) -> bool:
        """Whether the stack has resources of other providers than our own."""
        if model == naming.PLATFORM_STACK:
            return True
        spec = stackfile.read_spec(stackfile.path_of(self._settings.stacks_dir, model))
        return (spec.target if spec is not None else self._settings.target) != "local"

    def _stack(self, model: str, token: str) -> _Stack:
        return _Stack(model, self._workspace(model, token), program)

    def _is_missing(self, model: str) -> bool:
        """Whether there certainly is no such stack: of a file backend that is seen without starting the CLI."""
        return self._stacks is not None and not any((self._stacks / f"{model}{end}").exists() for end in _STATE_ENDS)

    def _init(self, model: str, token: str) -> None:
        try:
            arguments = ["stack", "init", "--stack", model, "--no-select", "--secrets-provider", "passphrase"]
            self._pulumi(arguments, model, token)
        except StackAlreadyExistsError:
            return

    def _pulumi(self, args: list[str], model: str, token: str) -> str:
        workspace = self._workspace(model, token)
        try:
            return self._command.run([*args], str(self._settings.stacks_dir), workspace.env_vars).stdout
        except (StackNotFoundError, StackAlreadyExistsError):
            raise
        except CommandError as error:
            if _is_locked(error):
                raise DeployInProgress(model) from error
            raise _failed(f"pulumi {args[0]} {args[1]} failed: {_stderr(error)}") from error

    @staticmethod
    def _run(model: str, watch: _Watch, operation: Callable[[], Any]) -> None:
        try:
            operation()
        except StackNotFoundError:
            raise
        except CommandError as error:
            if _is_locked(error):
                raise DeployInProgress(model) from error
            if watch.failure is not None:
                raise watch.failure from error
            raise _failed("\n".join(watch.errors) or _stderr(error)) from error


def _infrastructure_error(failure: ApplyFailed | InfrastructureFailed) -> InfrastructureFailed:
    if isinstance(failure, InfrastructureFailed):
        return failure
    kind = InfrastructureTimeout if failure.reason == "Timeout" else InfrastructureFailed
    return kind(failure.message, reason=failure.reason, log_tail=failure.log_tail)


def _is_alive(pid: int, since: str) -> bool:
    """Whether process `pid` is a Pulumi that ran already at the time `since` (ISO 8601).

    A number may have been given anew. The time alone does not tell: Linux counts it from a boot time in whole seconds.
    """
    try:
        process = psutil.Process(pid)
        return "pulumi" in process.name() and process.create_time() <= datetime.fromisoformat(since).timestamp()
    except psutil.NoSuchProcess:
        return False


def _is_locked(error: CommandError) -> bool:
    """Whether somebody else works on the stack, or did a moment ago: the CLI fails where a lock it lists is gone."""
    return isinstance(error, ConcurrentUpdateError) or _LOCK_GONE.search(str(error)) is not None


def _failed(text: str) -> InfrastructureFailed:
    return secrets.WrongPassphrase() if "incorrect passphrase" in text else InfrastructureFailed(text)


def _stderr(error: CommandError) -> str:
    """The part of a failed command that is for people."""
    return str(error).partition("stderr:")[2].strip() or str(error)


def pulumi_arguments(
    settings: Settings, command: auto.PulumiCommand, args: list[str]
) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of plain `pulumi ARGS`, to be run in the stacks folder."""
    executable = shutil.which(command.command)
    if executable is None:
        raise AsgardError(f"{command.command} is gone. Run the command again to have it found or installed anew.")
    environment = {**os.environ, **cli_environment(settings)}
    if settings.target == "local" and all(spec.target == "local" for spec in stackfile.specs(settings.stacks_dir)):
        # The program's environment has pulumi_kubernetes and pulumi_aws, whose plugins nobody here needs.
        environment["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
    environment["PATH"] = os.pathsep.join([environment["PATH"], str(Path(executable).parent)])
    return [executable, *args], environment
