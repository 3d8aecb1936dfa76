"""The pull request workflow of examples/infra-review, as far as it goes without its host."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

FOLDER = Path(__file__).parents[2] / "examples" / "infra-review"
STACK_FILE = Path(__file__).parents[1] / "stacks" / "schemas" / "1" / "Pulumi.iris.yaml"
STATE = STACK_FILE.with_name("iris.json")


class Repository:
    """A stacks folder under git, with the stack `iris` in a backend of its own."""

    def __init__(self, folder: Path, path: str) -> None:
        self.folder = folder / "stacks"
        state = folder / "data" / "backend" / ".pulumi"
        (state / "stacks" / "asgard-models").mkdir(parents=True)
        (state / "meta.yaml").write_text("version: 1\n")
        shutil.copy(STATE, state / "stacks" / "asgard-models")
        (folder / "data" / "passphrase").write_text("phrase")
        self.folder.mkdir()
        shutil.copy(STACK_FILE, self.folder)
        shutil.copy(FOLDER / "review.py", self.folder)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), path]),
            "ASGARD_DATA_DIR": str(folder / "data"),
            "ASGARD_STACKS_DIR": str(self.folder),
            "PULUMI_BACKEND_URL": f"file://{folder / 'data' / 'backend'}",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(folder / "data" / "passphrase"),
            "PULUMI_HOME": str(folder / "data" / "pulumi-home"),
            "PULUMI_PYTHON_CMD": sys.executable,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }
        # Writes what makes the folder a Pulumi project.
        self.run(sys.executable, "-m", "asgard.cli", "pulumi", "--", "stack", "ls")
        self.run("git", "init", "--quiet", "--initial-branch=main")
        self.run("git", "config", "user.name", "a reviewer")
        self.run("git", "config", "user.email", "reviewer@example.org")
        self.commit("as it is")

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=check
        )

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def review(self, action: str, base: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "review.py", action, base, check=False)


@pytest.fixture
def repository(tmp_path: Path, pulumi_path: str) -> Repository:
    return Repository(tmp_path, pulumi_path)


def edit(path: Path) -> None:
    yaml = YAML()
    yaml.preserve_quotes = True
    document = yaml.load(path.read_text())
    document["config"]["asgard-models:model"]["deployment"]["replicas"] += 1
    with path.open("w") as file:
        yaml.dump(document, file)


def test_a_changed_stack_file_is_previewed_with_its_difference(repository: Repository) -> None:
    edit(repository.folder / STACK_FILE.name)
    repository.commit("one more replica")
    done = repository.review("preview", "HEAD^")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("### iris\n")
    assert "replicas" in done.stdout
    assert "1 to update" in done.stdout


def test_a_file_that_is_not_valid_fails_the_review_and_says_why(repository: Repository) -> None:
    path = repository.folder / STACK_FILE.name
    path.write_text(path.read_text().replace("replicas: ", "replicas: -"))
    repository.commit("less than none")
    done = repository.review("preview", "HEAD^")
    assert done.returncode == 1
    assert "### iris — failed" in done.stdout
    assert "deployment.replicas" in done.stdout


def test_a_file_that_is_gone_destroys_nothing_and_says_how_to(repository: Repository) -> None:
    (repository.folder / STACK_FILE.name).unlink()
    repository.commit("no more irises")
    done = repository.review("apply", "HEAD^")
    assert done.returncode == 0
    assert "pulumi destroy --stack iris" in done.stdout


def test_what_no_stack_is_about_needs_no_review(repository: Repository) -> None:
    (repository.folder / "notes.md").write_text("hello")
    (repository.folder / "archive").mkdir()
    shutil.copy(STACK_FILE, repository.folder / "archive" / "Pulumi.old.yaml")
    repository.commit("notes")
    assert repository.review("preview", "HEAD^").stdout == "No stack file has changed.\n"


def steps() -> dict[str, dict[str, str]]:
    workflow = YAML(typ="safe").load((FOLDER / "review.yml").read_text())
    return {step["name"]: step for step in workflow["jobs"]["review"]["steps"] if "run" in step}


def test_the_workflow_calls_the_script_as_it_is_meant_to_be() -> None:
    assert steps()["Preview"]["run"].startswith("python review.py preview ")
    assert "python review.py apply " in steps()["Apply"]["run"]


@pytest.mark.parametrize(("applied", "told"), [("HEAD^^", True), ("", False)])
def test_what_a_cancelled_run_was_for_is_applied_by_the_next_one(
    repository: Repository, tmp_path: Path, applied: str, told: bool
) -> None:
    (repository.folder / STACK_FILE.name).unlink()
    repository.commit("no more irises, and this commit's run was cancelled")
    (repository.folder / "notes.md").write_text("hello")
    repository.commit("notes")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "gh").write_text(f"#!/bin/sh\necho {applied}\n")
    (programs / "gh").chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    repository.environment |= {
        "PATH": f"{programs}{os.pathsep}{repository.environment['PATH']}",
        "BEFORE": "HEAD^",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    done = repository.run("bash", "-eo", "pipefail", "-c", steps()["Apply"]["run"])
    assert ("pulumi destroy --stack iris" in done.stdout) == told
    assert (tmp_path / "summary.md").read_text() == done.stdout


def test_the_report_of_many_stacks_fits_into_a_comment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    review = runpy.run_path(str(FOLDER / "review.py"))
    scope = review["main"].__globals__
    monkeypatch.setitem(scope, "changes", lambda _: ([f"model-{number}" for number in range(40)], []))
    monkeypatch.setitem(scope, "run", lambda *_: (True, "x" * 5_000))
    monkeypatch.setattr(sys, "argv", ["review.py", "preview", "HEAD^"])
    assert review["main"]() == 0
    assert len(capsys.readouterr().out) < 65_536
