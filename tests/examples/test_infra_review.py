"""The pull request workflow of examples/infra-review, as far as it goes without its host."""

import os
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
    repository.commit("notes")
    assert repository.review("preview", "HEAD^").stdout == "No stack file has changed.\n"


def test_the_workflow_calls_the_script_as_it_is_meant_to_be() -> None:
    workflow = YAML(typ="safe").load((FOLDER / "review.yml").read_text())
    commands = [step["run"] for step in workflow["jobs"]["review"]["steps"] if "review.py" in step.get("run", "")]
    assert [command.split()[:3] for command in commands] == [
        ["python", "review.py", "preview"],
        ["python", "review.py", "apply"],
    ]
