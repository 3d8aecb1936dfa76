"""A state and a stack file of every released schema still preview without a change.

`schemas/<number>/` holds both as they were written then, passphrase "phrase".
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asgard.stacks.spec import SCHEMA

SCHEMAS = Path(__file__).parent / "schemas"


def test_every_schema_up_to_the_present_one_is_kept() -> None:
    assert sorted(path.name for path in SCHEMAS.iterdir()) == [str(number) for number in range(1, SCHEMA + 1)]


@pytest.mark.parametrize("schema", sorted(path.name for path in SCHEMAS.iterdir()))
def test_an_old_stack_previews_without_a_change(schema: str, tmp_path: Path, pulumi_path: str) -> None:
    state = tmp_path / "backend/.pulumi/stacks/asgard-models"
    state.mkdir(parents=True)
    (tmp_path / "backend/.pulumi/meta.yaml").write_text("version: 1\n")
    shutil.copy(SCHEMAS / schema / "iris.json", state)
    (tmp_path / "stacks").mkdir()
    shutil.copy(SCHEMAS / schema / "Pulumi.iris.yaml", tmp_path / "stacks")
    (tmp_path / "passphrase").write_text("phrase")
    done = subprocess.run(
        [sys.executable, "-m", "asgard.cli", "pulumi", "--", "preview", "--expect-no-changes", "-s", "iris"],
        env={**os.environ, "PATH": pulumi_path, "ASGARD_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
