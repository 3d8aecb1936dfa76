"""The environment of a deploy: a uv project whose lock holds what was posted and what tracking and serving need.

Environments are shared between deploys by the hash of their lock. Files are hard links into uv's cache.
"""

import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Final

import tomlkit
from filelock import FileLock, Timeout
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .. import serving
from ..errors import EnvironmentUnavailable, RequirementsConflict
from ..serving.processes import clean_environment
from ..settings import Settings
from . import conflicts, constraints, files, processes, pythons, syntax, uv_tool
from .images.contents import MACHINES
from .uv_tool import OnLog, UvFailed

FRESH_SECONDS: Final = 600.0
"""How long the same requirements give the same lock unasked: as long as PyPI tells clients to believe its answers."""

FILES: Final = ("pyproject.toml", "uv.lock")
"""What a lock is kept in."""
_START_HOOKS: Final = tuple(Path(__file__).with_name(f"{name}.py") for name in ("early_imports", "saving_fallback"))
"""What the interpreters of an environment run at start."""
_READY: Final = ".ready"
_COMPILE_SECONDS: Final = 120


@dataclass(frozen=True)
class Lock:
    """Exact versions for one Python (as in `3.11`) of this platform. `folder` holds pyproject.toml and uv.lock."""

    folder: Path
    python: str
    digest: str


@dataclass(frozen=True)
class Environment:
    """An installed lock. `python`: its interpreter."""

    path: Path
    python: Path


@dataclass(frozen=True)
class Where:
    """Where a model is to run. `pythons`: the versions it may have, newest first.

    `image_platform`: of its image, as in `linux/amd64`; None: it runs on this machine alone.
    """

    pythons: tuple[str, ...] = pythons.SUPPORTED
    image_platform: str | None = None


HERE: Final = Where()


@dataclass(frozen=True)
class _Project:
    """What determines a resolution, apart from the state of the package index."""

    posted: tuple[Requirement, ...]
    added: tuple[Requirement, ...]
    where: Where
    wished: tuple[Requirement, ...] = ()
    """Left out where they do not fit the others."""

    @property
    def dependencies(self) -> list[str]:
        return [str(requirement) for requirement in (*self.posted, *self.added, *self.wished)]


def read(folder: Path) -> Lock:
    """The lock in a folder, as `resolve` left it or a bundle keeps it. Raises FileNotFoundError."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    python = project["requires-python"].removeprefix("==").removesuffix(".*")
    digest = hashlib.sha256(f"{python}\n".encode() + (folder / "uv.lock").read_bytes())
    return Lock(folder, python, digest.hexdigest()[:32])


def resolve(requirements: Sequence[str], folder: Path, settings: Settings, on_log: OnLog, where: Where = HERE) -> Lock:
    """Make `folder` a uv project with a lock for the newest Python that has wheels for all of it, here and `where`.

    Requirements are PEP 508 strings. Raises RequirementsConflict, and EnvironmentUnavailable where the package index
    cannot be reached, no suitable Python can be had, or it takes longer than `ASGARD_ENVIRONMENT_TIMEOUT_SECONDS`.
    """
    posted = tuple(syntax.requirement(requirement) for requirement in requirements)
    project = _Project(posted, _added(posted), where, _wished(posted, settings))
    remembered = settings.cache_dir / "locks" / _key(project)
    folder.mkdir(parents=True, exist_ok=True)
    remembered.parent.mkdir(parents=True, exist_ok=True)
    # One lock per request: equal ones that come together are resolved once.
    with FileLock(f"{remembered}.lock"):
        if not _is_fresh(remembered):
            try:
                _resolve_with_wishes(project, folder, settings, on_log)
            except EnvironmentUnavailable as error:
                if not (remembered / "uv.lock").exists():
                    raise
                on_log(f"{error.message} The versions found earlier are used.")
            else:
                _copy(folder, remembered)
        _copy(remembered, folder)
    lock = read(folder)
    on_log(f"Python {lock.python}, {(folder / 'uv.lock').read_text().count('[[package]]') - 1} packages")
    return lock


def ensure(lock: Lock, settings: Settings, on_log: OnLog) -> Environment:
    """Install the lock unless that was done before; needs nothing but the lock's folder.

    Raises EnvironmentUnavailable, and RequirementsConflict where a package of the lock has no wheel for this machine.
    """
    path = settings.cache_dir / "environments" / lock.digest
    environment = Environment(path, path / "bin" / "python")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Built in place, as scripts in bin/ hold the path; the marker says that it is whole, and when it was last wanted.
    with FileLock(f"{path}.lock"):
        if not _is_ready(environment):
            shutil.rmtree(path, ignore_errors=True)
            _install(lock, path, settings, on_log)
            _add_start_hooks(path)
            files.replace(path / _READY, _hooks_digest())
        # Not written anew: a full disk would leave it empty, and the environment that models serve from be removed.
        os.utime(path / _READY)
    return environment


def compile_beside(environment: Environment) -> None:
    """Have another process import what a script and its server will, where nobody has: a first import compiles it."""
    packages = _site_packages(environment.path)
    if not (packages / "pandas" / "__pycache__").exists():
        threading.Thread(target=_import, args=(environment,), daemon=True).start()


def _import(environment: Environment) -> None:
    names = ("pandas", "sklearn.ensemble", "onnxruntime", "orjson", "uvloop", "httptools")
    each = "    try: importlib.import_module(name)\n    except Exception: pass"
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            [environment.python, "-c", f"import importlib\nfor name in {names}:\n{each}"],
            env=clean_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COMPILE_SECONDS,
            check=False,
        )


def prune(cache_dir: Path, before: float) -> list[Path]:
    """Remove the environments that were last wanted before that time and that no process runs from; gives them.

    What is wanted again is installed again. Other data folders may share the cache, so processes tell what is used.
    """
    removed = []
    for path in (cache_dir / "environments").glob("*/"):
        with suppress(Timeout), FileLock(f"{path}.lock", timeout=0):
            if _last_wanted(path) < before and not processes.run_from(path):
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
    return removed


def _last_wanted(path: Path) -> float:
    marker = path / _READY
    return (marker if marker.exists() else path).stat().st_mtime


def _is_ready(environment: Environment) -> bool:
    # The interpreter is a link to one outside, which may have been removed since.
    ready = environment.path / _READY
    return ready.exists() and ready.read_text() == _hooks_digest() and environment.python.exists()


def _install(lock: Lock, path: Path, settings: Settings, on_log: OnLog) -> None:
    interpreter = pythons.needed(lock.python, "The environment needs", on_log)
    on_log(f"Installing the environment {lock.digest[:12]}")
    try:
        uv_tool.run(
            "sync", "--frozen", "--no-install-project", "--no-build", "--no-python-downloads",
            f"--python={interpreter}", f"--project={lock.folder}",
            environment={"UV_PROJECT_ENVIRONMENT": str(path)},
            timeout_seconds=settings.environment_timeout_seconds,
            on_log=lambda line: None if line.startswith(" + ") else on_log(line),
        )  # fmt: skip
    except UvFailed as failure:
        if conflicts.is_unsatisfiable(failure.text):
            raise RequirementsConflict(
                f"A package has no wheel for this machine: {conflicts.clean(failure.text)} Pin a version that has one.",
                stage="environment",
            ) from None
        raise _unavailable("installed", failure) from None


def _site_packages(path: Path) -> Path:
    (found,) = path.glob("lib/python3*/site-packages")
    return found


def _add_start_hooks(path: Path) -> None:
    packages = _site_packages(path)
    for hook in _START_HOOKS:
        name = f"asgard_{hook.stem}"
        shutil.copyfile(hook, packages / f"{name}.py")
        (packages / f"{name}.pth").write_text(f"import {name}\n")


@functools.cache
def _hooks_digest() -> str:
    return hashlib.sha256(b"".join(hook.read_bytes() for hook in _START_HOOKS)).hexdigest()


def _added(posted: tuple[Requirement, ...]) -> tuple[Requirement, ...]:
    """What tracking and serving need beside what was posted."""
    needs = [syntax.requirement(requirement) for requirement in serving.SERVER_REQUIREMENTS]
    names = {canonicalize_name(requirement.name) for requirement in posted}
    if not names & {"mlflow", "mlflow-skinny"}:
        # The whole of MLflow: flavours save with packages that mlflow-skinny leaves out.
        needs.append(syntax.requirement("mlflow"))
    return tuple(needs)


def _wished(posted: tuple[Requirement, ...], settings: Settings) -> tuple[Requirement, ...]:
    names = {canonicalize_name(requirement.name) for requirement in posted}
    wished = map(syntax.requirement, serving.COMPILED_REQUIREMENTS if settings.compile_models else ())
    return tuple(requirement for requirement in wished if canonicalize_name(requirement.name) not in names)


def _limits(project: _Project, settings: Settings) -> list[str]:
    limits = [limit.requirement for limit in constraints.always(project.posted)]
    if settings.mlflow_tracking_uri is None:
        # A client that is newer than the embedded server may ask for what that does not have.
        newest = f"<={installed_version('mlflow')}"
        limits += [f"mlflow{newest}", f"mlflow-skinny{newest}"]
    named = {canonicalize_name(requirement.name) for requirement in project.posted if requirement.specifier}
    return [limit for limit in limits if syntax.requirement(limit).name not in named]


def _resolve_with_wishes(project: _Project, folder: Path, settings: Settings, on_log: OnLog) -> None:
    """Nothing of what was posted gets another version, or becomes a conflict, for what is only wished for."""
    _resolve(replace(project, wished=()), folder, settings, on_log)
    if not project.wished:
        return
    kept = {name: (folder / name).read_bytes() for name in FILES}
    before = _versions(folder)
    try:
        _lock_wished(project, folder, settings)
        fits = before.items() <= _versions(folder).items()
    except UvFailed:
        fits = False
    if not fits:
        on_log(f"The other requirements do not allow {', '.join(map(str, project.wished))}, so it is left out")
        for name, content in kept.items():
            (folder / name).write_bytes(content)


def _lock_wished(project: _Project, folder: Path, settings: Settings) -> None:
    document = tomlkit.parse((folder / "pyproject.toml").read_text())
    document["project"]["dependencies"].extend(map(str, project.wished))
    (folder / "pyproject.toml").write_text(tomlkit.dumps(document))
    # The lock that is there stays: uv prefers its versions.
    interpreter = pythons.installed()[read(folder).python]
    deadline = time.monotonic() + settings.environment_timeout_seconds
    try:
        # An index that forbids or forgets to allow caching would be asked for every package of the lock once more.
        _uv_lock(interpreter, folder, deadline, "--offline")
    except UvFailed:
        _uv_lock(interpreter, folder, deadline)


def _versions(folder: Path) -> dict[str, str]:
    """Of the packages in the lock. One may have several, for several platforms: the last counts."""
    packages = tomllib.loads((folder / "uv.lock").read_text())["package"]
    return {package["name"]: package["version"] for package in packages if "version" in package}


def _resolve(project: _Project, folder: Path, settings: Settings, on_log: OnLog) -> None:
    deadline = time.monotonic() + settings.environment_timeout_seconds
    limits = _limits(project, settings)
    try:
        python = _lock_newest(project, limits, project.where.pythons, folder, deadline, on_log)
    except RequirementsConflict as error:
        if not any(syntax.requirement(limit).name in error.message for limit in limits):
            raise
        python = _lock_newest(project, limits := [], project.where.pythons, folder, deadline, on_log)

    locked = (folder / "uv.lock").read_text()
    content = tomllib.loads(locked)
    undeclared, needed = constraints.undeclared(content, project.posted), constraints.needed(content, project.posted)
    if undeclared or needed:
        for limit in (*undeclared, *needed):
            on_log(f"{limit.requirement}: {limit.reason}")
        completed = replace(
            project, added=(*project.added, *(syntax.requirement(limit.requirement) for limit in undeclared))
        )
        further = [*limits, *dict.fromkeys(limit.requirement for limit in needed)]
        # What does not resolve on a newer Python does not with more limits either.
        candidates = project.where.pythons[project.where.pythons.index(python) :]
        try:
            _lock_newest(completed, further, candidates, folder, deadline, on_log)
        except RequirementsConflict:
            on_log("The other requirements do not allow these, so they are left out")
            _write_project(project, limits, python, folder)
            (folder / "uv.lock").write_text(locked)


def _lock_newest(
    project: _Project, limits: list[str], candidates: Sequence[str], folder: Path, deadline: float, on_log: OnLog
) -> str:
    """Lock for the first of the Pythons that works; gives that one."""
    available = pythons.installed()
    failures: dict[str, str] = {}
    wanted: list[str] = []
    for python in candidates:
        interpreter = available.get(python)
        _write_project(project, limits, python, folder)
        try:
            if interpreter is None:
                # No point in downloading a Python for which there are no wheels.
                _check(python, folder, deadline)
                interpreter = pythons.download(python, on_log)
            if interpreter is None:
                wanted.append(python)
                continue
            (folder / "uv.lock").unlink(missing_ok=True)
            _uv_lock(interpreter, folder, deadline)
        except UvFailed as failure:
            if not conflicts.is_unsatisfiable(failure.text) or conflicts.is_unreachable(failure.text):
                raise _unavailable("resolved", failure) from None
            failures[python] = failure.text
            if conflicts.names_unknown_package(failure.text):
                break
            if conflicts.lacks_wheels(failure.text):
                on_log(f"Python {python}: {conflicts.clean(failure.text)}")
            continue
        return python
    if wanted:
        raise pythons.missing(" or ".join(wanted), "The requirements need")
    raise RequirementsConflict(conflicts.explain(failures, project.posted, project.added), stage="environment")


def _uv_lock(interpreter: Path, folder: Path, deadline: float, *options: str) -> None:
    uv_tool.run(
        "lock", f"--python={interpreter}", f"--project={folder}", "--no-build", "--no-python-downloads", *options,
        timeout_seconds=deadline - time.monotonic(), on_log=_ignore,
    )  # fmt: skip


def _check(python: str, folder: Path, deadline: float) -> None:
    uv_tool.run(
        "pip", "compile", str(folder / "pyproject.toml"), f"--python-version={python}", "--only-binary=:all:",
        f"--python={sys.executable}", "--no-header", "--no-annotate",
        timeout_seconds=deadline - time.monotonic(), on_log=_ignore,
    )  # fmt: skip


def _write_project(project: _Project, limits: Sequence[str], python: str, folder: Path) -> None:
    """The lock is for as few platforms as may be and one Python alone, which makes it small and quick to resolve."""
    machines = {(sys.platform, platform.machine())}
    if project.where.image_platform is not None:
        machines.add(("linux", MACHINES[project.where.image_platform]))
    markers = [
        f"sys_platform == '{system}' and platform_machine == '{machine}' "
        "and platform_python_implementation == 'CPython'"
        for system, machine in sorted(machines)
    ]
    document = {
        "project": {
            "name": "asgard-model-environment",
            "version": "0",
            "requires-python": f"=={python}.*",
            "dependencies": project.dependencies,
        },
        "tool": {
            "uv": {
                "package": False,
                "no-build": True,
                "environments": markers,
                "required-environments": markers,
                "constraint-dependencies": list(limits),
                # A root of its own, whatever workspace the data folder may lie in.
                "workspace": {},
            }
        },
    }
    (folder / "pyproject.toml").write_text(tomlkit.dumps(document))


def _key(project: _Project) -> str:
    """Of everything that a resolution depends on and that can be known without asking the index."""
    index_settings = {name: value for name, value in os.environ.items() if name.startswith("UV_")}
    parts = [
        sorted(project.dependencies), repr(constraints.ALWAYS + constraints.UNDECLARED + constraints.LIMITS),
        installed_version("mlflow"), installed_version("uv"), sorted(index_settings.items()),
        sys.platform, platform.machine(), asdict(project.where),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _is_fresh(remembered: Path) -> bool:
    try:
        age = time.time() - (remembered / "uv.lock").stat().st_mtime
    except FileNotFoundError:
        return False
    return 0 <= age < FRESH_SECONDS


def _copy(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name in FILES:
        temporary = target / f".{name}"
        shutil.copyfile(source / name, temporary)
        temporary.replace(target / name)


def _unavailable(what: str, failure: UvFailed) -> EnvironmentUnavailable:
    tail = failure.text.splitlines()[-20:]
    if isinstance(failure, uv_tool.UvTimeout):
        reason = f"{failure.text}; ASGARD_ENVIRONMENT_TIMEOUT_SECONDS sets the limit"
    elif conflicts.is_unreachable(failure.text):
        detail = conflicts.clean(failure.text).rstrip(".")
        reason = f"the package index cannot be reached or refuses ({detail}). Try again later"
    else:
        reason = conflicts.clean(failure.text).rstrip(".")
    return EnvironmentUnavailable(
        f"The requirements could not be {what}: {reason}.", stage="environment", log_tail=tail
    )


def _ignore(_: str) -> None:
    return
