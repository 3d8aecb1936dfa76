"""A program that only exports outputs, driven by the real CLI: with its own language host where it has one."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

PROGRAM = """
import os
import sys

import pulumi

config = pulumi.Config()
print("hello from the program")
pulumi.export("greeting", config.require("greeting"))
pulumi.export("token", config.require_secret("token"))
pulumi.export("executable", sys.executable)
pulumi.export("directory", os.getcwd())
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "a project"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text("name: greetings\nruntime: python\n")
    (folder / "__main__.py").write_text(PROGRAM)
    return folder


@pytest.fixture
def pulumi(project: Path, pulumi_path: str, tmp_path: Path) -> Run:
    (tmp_path / "backend").mkdir()
    environment = {
        **os.environ,
        "PATH": pulumi_path,
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_BACKEND_URL": f"file://{tmp_path / 'backend'}",
        "PULUMI_CONFIG_PASSPHRASE": "correct horse",
        "PULUMI_PYTHON_CMD": sys.executable,
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        # The SDK and nothing else that Pulumi would look for a plugin of.
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }

    def run(*args: str, code: int = 0, **extra: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["pulumi", "--non-interactive", *args],
            cwd=project,
            env={**environment, **extra},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    run("stack", "init", "dev")
    run("config", "set-all", "--plaintext", "greeting=hi there", "--secret", "token=s3cret-value")
    return run


def test_a_program_is_previewed_deployed_and_destroyed(pulumi: Run, project: Path) -> None:
    assert "hello from the program" in pulumi("preview").stdout
    pulumi("preview", "--expect-no-changes", code=7)

    pulumi("up", "--yes")
    outputs = json.loads(pulumi("stack", "output", "--json").stdout)
    assert outputs == {
        "greeting": "hi there",
        "token": "[secret]",
        "executable": sys.executable,
        "directory": str(project),
    }
    pulumi("preview", "--expect-no-changes")

    pulumi("destroy", "--yes")
    assert json.loads(pulumi("stack", "output", "--json").stdout) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("raise LookupError('no such thing')", "LookupError: no such thing"),
        ("os._exit(3)", "program exited with non-zero exit code: 3"),
        ("pulumi.runtime.nothing_like_it", "AttributeError"),
    ],
)
def test_a_program_that_fails_fails_the_command_and_says_why(
    pulumi: Run, project: Path, line: str, message: str
) -> None:
    (project / "__main__.py").write_text(f"{PROGRAM}{line}\n")
    failed = pulumi("preview", code=1)
    assert message in failed.stdout + failed.stderr


def environment_like_this_one(folder: Path) -> Path:
    venv.create(folder, with_pip=False)
    packages = next((folder / "lib").glob("python3*/site-packages"))
    (packages / "all.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def executable(pulumi: Run) -> str:
    pulumi("up", "--yes")
    found: str = json.loads(pulumi("stack", "output", "--json").stdout)["executable"]
    return found


def test_a_uv_lock_above_the_program_decides_unless_the_project_says_pip(
    pulumi: Run, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "uv.lock").write_text("version = 1\npackage = []\n")
    beside_lock = environment_like_this_one(tmp_path / ".venv")
    assert executable(pulumi) == str(beside_lock / "bin" / "python")

    (project / "Pulumi.yaml").write_text("name: greetings\nruntime: {name: python, options: {toolchain: pip}}\n")
    assert executable(pulumi) == sys.executable


def test_the_interpreter_must_have_pip_or_the_project_a_uv_lock(pulumi: Run, tmp_path: Path) -> None:
    """What decides whether the environment of `asgard` will do for the real host."""
    venv.create(tmp_path / "bare", with_pip=False)
    failed = pulumi("preview", code=1, PULUMI_PYTHON_CMD=str(tmp_path / "bare" / "bin" / "python"))
    assert "pip" in failed.stdout + failed.stderr


def test_a_virtual_environment_named_in_the_project_is_taken_from_the_projects_folder(
    pulumi: Run, project: Path, tmp_path: Path
) -> None:
    named = environment_like_this_one(project / "named")
    (project / "Pulumi.yaml").write_text(
        "name: greetings\nruntime:\n  name: python\n  options:\n    virtualenv: named\nmain: program\n"
    )
    (project / "program").mkdir()
    (project / "__main__.py").rename(project / "program" / "__main__.py")
    pulumi("up", "--yes")
    outputs = json.loads(pulumi("stack", "output", "--json").stdout)
    assert outputs["executable"] == str(named / "bin" / "python")
    assert outputs["directory"] == str(project / "program")

    missing = (project / "Pulumi.yaml").read_text().replace("virtualenv: named", "virtualenv: missing")
    (project / "Pulumi.yaml").write_text(missing)
    (project / "missing").mkdir()
    (project / "missing" / "keep").touch()
    failed = pulumi("preview", code=1)
    assert "doesn't appear to be a virtual environment" in failed.stdout + failed.stderr
