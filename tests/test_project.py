"""Rules of the project that no other tool holds."""

import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
SOURCE = CHECKOUT / "src"


def packages() -> list[Path]:
    return [path.parent.relative_to(SOURCE) for path in sorted(SOURCE.rglob("__init__.py"))]


def test_platform_stays_the_standard_librarys() -> None:
    """With src/ on sys.path, src/platform would be found in its place."""
    program = """
import asgard.platform, platform, sys, sysconfig, uuid
print(platform.__file__ == sysconfig.get_path("stdlib") + "/platform.py", asgard.platform is not platform)
print(*sys.path, sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    answer, *path = done.stdout.splitlines()
    assert answer == "True True"
    assert SOURCE not in map(Path, [*path, *sys.path])


def test_every_package_folder_is_installed() -> None:
    setuptools = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == sorted(".".join(("asgard", *folder.parts)) for folder in packages())


def test_nothing_in_stacks_hides_a_library() -> None:
    """The Pulumi CLI puts src/stacks first on sys.path when it runs the program in there."""
    names = {path.stem for path in (SOURCE / "stacks").iterdir() if not path.name.startswith("__")}
    assert names
    assert names & (sys.stdlib_module_names | packages_distributions().keys()) == set()


def test_the_commands_can_be_started() -> None:
    commands = {entry.name: entry.load() for entry in distribution("asgard").entry_points}
    assert commands.keys() == {"asgard", "pulumi-resource-asgard"}
    assert all(map(callable, commands.values()))


def test_make_lists_its_targets() -> None:
    command = ["make", "--no-print-directory", "help"]
    listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    targets = {line.split()[0] for line in listed.splitlines() if len(line.split()) > 1}
    assert targets == {"help", "setup", "demo", "test", "check", "serve", "bench", "clean"}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("planted: int = 'text'", "Incompatible types in assignment"),
        ("from ..progress import Progress\nProgress(stage='queue', kind='stage', text=1)", 'expected "str"'),
    ],
)
def test_a_type_error_in_the_package_is_reported(tmp_path: Path, line: str, error: str) -> None:
    """`mypy -p asgard` checks the mapped package, imports within it too: as in the Makefile, on a small copy."""
    for name in ("__init__.py", "progress.py", "platform/__init__.py"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCE / name, tmp_path / "src" / name)
    shutil.copytree(CHECKOUT / "typings", tmp_path / "typings", symlinks=True)
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    (tmp_path / "src" / "platform" / "planted.py").write_text(f"{line}\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "-p", "asgard"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert error in done.stdout
    assert "Found 1 error in 1 file" in done.stdout
