"""Stand-in for Pulumi's Python language host (`pulumi-language-python`), where the Pulumi CLI was built from source.

Speaks `pulumirpc.LanguageRuntime` as the real host of Pulumi 3.255 does for programs: its flags, how it picks the
interpreter (options `toolchain` and `virtualenv`, `PULUMI_PYTHON_CMD`), what it asks of that interpreter, the command
line and environment of a program, exit codes, cancellation. It does not do type checkers, debuggers, Poetry, plugins
written in Python, code generation or the installation of dependencies: those are answered with an error.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import threading
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

PROGRAM_SHOWED_ITS_ERROR = 32
CANCEL_GRACE_SECONDS = 5
WITHOUT_PLUGIN = {"pulumi-policy", "pulumi-esc-sdk"}

PLUGIN_FILES = """
import importlib.metadata, importlib.util, json, pathlib, sys
found = {}
for name in sys.argv[1:]:
    try:
        module = importlib.metadata.distribution(name).metadata["Name"].replace("-", "_")
        spec = importlib.util.find_spec(module)
        folders = list(spec.submodule_search_locations or []) if spec else []
    except (importlib.metadata.PackageNotFoundError, ImportError, ValueError):
        continue
    for path in (pathlib.Path(folder, "pulumi-plugin.json") for folder in folders):
        if path.is_file():
            found.setdefault(name, json.loads(path.read_text()))
print(json.dumps(found))
"""


class HostError(Exception):
    """What the real host answers as an error of the call."""


@dataclass(frozen=True)
class Toolchain:
    """How Python is run for one project. `lock`: the uv.lock that says what is installed; None: pip is asked."""

    python: str
    environment: dict[str, str]
    directory: str | None = None
    lock: Path | None = None

    def output(self, *args: str) -> str:
        done = subprocess.run(
            [self.python, *args], env=self.environment, cwd=self.directory, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise HostError(
                f"calling `{self.python} {' '.join(args[:3])}`: exit status {done.returncode}: {done.stderr}"
            )
        return done.stdout

    def packages(self) -> dict[str, str]:
        """Version by normalized name."""
        if self.lock is not None:
            listed = tomllib.loads(self.lock.read_text())["package"]
            listed = [package for package in listed if "virtual" not in package["source"]]
        else:
            listed = json.loads(self.output("-m", "pip", "list", "--format", "json"))
        return {entry["name"].lower().replace("_", "-"): entry.get("version", "") for entry in listed}


def upwards(folder: Path, name: str) -> Path | None:
    return next((parent / name for parent in (folder, *folder.parents) if (parent / name).exists()), None)


def resolve(info: language_pb2.ProgramInfo) -> Toolchain:
    """By the option `toolchain`, else uv where a uv.lock is in the program's folder or above, else pip."""
    options: dict[str, Any] = MessageToDict(info.options)
    if options.get("typechecker"):
        raise HostError("the stand-in for the Python language host has no type checker")
    toolchain = options.get("toolchain")
    if toolchain not in (None, "pip", "uv"):
        raise HostError(f"unsupported toolchain option: {toolchain}")
    root, program = Path(info.root_directory), Path(info.program_directory)
    virtualenv = options.get("virtualenv", "")
    if toolchain == "uv" or (toolchain is None and upwards(program, "uv.lock")):
        return uv_toolchain(root, program, virtualenv)
    if not virtualenv:
        return Toolchain(ambient_python(), dict(os.environ))
    folder = root / virtualenv
    if not (folder / "bin" / "python").exists():
        state = "doesn't appear to be a virtual environment" if folder.exists() else "doesn't exist"
        raise HostError(f'The \'virtualenv\' option in Pulumi.yaml is set to "{virtualenv}", but "{folder}" {state}')
    return Toolchain(str(folder / "bin" / "python"), activated(folder))


def uv_toolchain(root: Path, program: Path, virtualenv: str) -> Toolchain:
    if shutil.which("uv") is None:
        raise HostError("Could not find `uv` executable.\nInstall uv and make sure it is in your PATH.")
    lock = upwards(program, "uv.lock")
    project = upwards(program, "pyproject.toml")
    if virtualenv:
        folder = root / virtualenv
    else:
        beside = (lock or project or program / "none").parent
        folder = beside / os.environ.get("UV_PROJECT_ENVIRONMENT", ".venv")
    if project is not None:
        sync = ["uv", "sync", "--inexact"]
        environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(folder)}
        synced = subprocess.run(sync, cwd=program, env=environment, capture_output=True, text=True, check=False)
        if synced.returncode != 0:
            raise HostError(f"error creating virtual environment: {synced.stderr}")
    if not (folder / "bin" / "python").exists():
        raise HostError(f"'{folder}' is not a virtualenv")
    return Toolchain(str(folder / "bin" / "python"), activated(folder), str(program), lock)


def ambient_python() -> str:
    names = [os.environ["PULUMI_PYTHON_CMD"]] if os.environ.get("PULUMI_PYTHON_CMD") else ["python3", "python"]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise HostError(f"failed to locate any of {names} on your PATH. Have you installed Python 3.6 or greater?")
    return found


def activated(virtualenv: Path) -> dict[str, str]:
    environment = {**os.environ, "VIRTUAL_ENV": str(virtualenv)}
    environment["PATH"] = f"{virtualenv / 'bin'}{os.pathsep}{environment.get('PATH', '')}"
    environment.pop("PYTHONHOME", None)
    return environment


def required_packages(toolchain: Toolchain) -> Iterable[plugin_pb2.PackageDependency]:
    """The plugins that the environment's packages name; those without a plugin file count by the prefix `pulumi-`."""
    versions = toolchain.packages()
    files = json.loads(toolchain.output("-c", PLUGIN_FILES, *versions))
    for name, version in versions.items():
        plugin = files.get(name)
        if name in WITHOUT_PLUGIN or (plugin is None and not name.startswith("pulumi-")):
            continue
        plugin = plugin or {"resource": True}
        if not plugin.get("resource"):
            continue
        plugin_version = plugin.get("version") or version
        yield plugin_pb2.PackageDependency(
            name=plugin.get("name") or name.removeprefix("pulumi-"),
            version=plugin_version if plugin_version.startswith("v") else f"v{plugin_version}",
            kind="resource",
            server=plugin.get("server", ""),
        )


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """One host serves one engine. `cancelled` ends whatever program runs."""

    def __init__(self, executor: str, engine: str) -> None:
        self.executor = executor
        self.engine = engine
        self.cancelled = threading.Event()

    def Handshake(
        self, request: language_pb2.LanguageHandshakeRequest, context: grpc.ServicerContext
    ) -> language_pb2.LanguageHandshakeResponse:
        self.engine = request.engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Empty, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo()

    def GetRequiredPackages(
        self, request: language_pb2.GetRequiredPackagesRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetRequiredPackagesResponse:
        try:
            packages = list(required_packages(resolve(request.info)))
        except HostError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return language_pb2.GetRequiredPackagesResponse(packages=packages)

    def GetProgramDependencies(
        self, request: language_pb2.GetProgramDependenciesRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetProgramDependenciesResponse:
        try:
            packages = resolve(request.info).packages()
        except HostError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[language_pb2.DependencyInfo(name=name, version=version) for name, version in packages.items()]
        )

    def About(self, request: language_pb2.AboutRequest, context: grpc.ServicerContext) -> language_pb2.AboutResponse:
        toolchain = Toolchain(ambient_python(), dict(os.environ))
        executable, version = toolchain.output(
            "-c", "import platform, sys; print(sys.executable); print(platform.python_version())"
        ).splitlines()
        return language_pb2.AboutResponse(executable=executable, version=version)

    def Run(self, request: language_pb2.RunRequest, context: grpc.ServicerContext) -> language_pb2.RunResponse:
        try:
            toolchain = resolve(request.info)
        except HostError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        process = subprocess.Popen(
            [toolchain.python, self.executor, *program_arguments(request, self.engine)],
            env={**toolchain.environment, **program_config(request)},
            cwd=toolchain.directory,
        )
        context.add_callback(
            self.cancelled.set
        )  # Also called when the call has ended, and then there is nothing to end.
        while process.poll() is None:
            if self.cancelled.wait(0.02):
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(CANCEL_GRACE_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        if process.returncode == PROGRAM_SHOWED_ITS_ERROR:
            return language_pb2.RunResponse(bail=True)
        # Go calls the exit status of a process that a signal ended -1.
        code = max(process.returncode, -1)
        return language_pb2.RunResponse(error=f"program exited with non-zero exit code: {code}" if code else "")

    def Cancel(self, request: Empty, context: grpc.ServicerContext) -> Empty:
        self.cancelled.set()
        return Empty()


def program_arguments(request: language_pb2.RunRequest, engine: str) -> list[str]:
    """For `pulumi-language-python-exec`; what is empty is left out."""
    named = {
        "monitor": request.monitor_address,
        "engine": engine,
        "project": request.project,
        "root_directory": request.info.root_directory,
        "stack": request.stack,
        "pwd": request.pwd,
        "dry_run": "true" if request.dryRun else "false",
        "parallel": str(request.parallel),
        "organization": request.organization,
    }
    given = [part for name, value in named.items() if value for part in (f"--{name}", value)]
    return [*given, request.info.entry_point, *request.args]


def program_config(request: language_pb2.RunRequest) -> dict[str, str]:
    config = {"PULUMI_CONFIG": json.dumps(dict(request.config))} if request.config else {}
    return {**config, "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys))}


def main() -> None:
    """Print the port, then serve until SIGINT, or until the engine that started this process is gone."""
    parser = argparse.ArgumentParser(prog="pulumi-language-python")
    parser.add_argument("-tracing", "--tracing", default="", help="accepted and ignored")
    parser.add_argument("-use-executor", "--use-executor", required=True, help="path of pulumi-language-python-exec")
    parser.add_argument("engine", nargs="?", default="")
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    host = LanguageHost(arguments.use_executor, arguments.engine)
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)  # noqa: T201
    parent = os.getppid()
    while not stop.wait(0.5) and os.getppid() == parent:
        pass
    host.cancelled.set()
    server.stop(CANCEL_GRACE_SECONDS).wait()


if __name__ == "__main__":
    main()
