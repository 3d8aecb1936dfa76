import subprocess
import sys
from pathlib import Path

import pytest

from asgard.errors import DeployInProgress
from asgard.platform.locks import model_lock

HOLD = """
import sys
from pathlib import Path
from asgard.platform.locks import model_lock
with model_lock(Path(sys.argv[1]), "iris"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_operation_on_the_same_model_is_refused(tmp_path: Path) -> None:
    with model_lock(tmp_path, "iris"), pytest.raises(DeployInProgress), model_lock(tmp_path, "iris"):
        pass


def test_operations_on_different_models_do_not_meet(tmp_path: Path) -> None:
    with model_lock(tmp_path, "iris"), model_lock(tmp_path, "wine"):
        pass


def test_a_lock_leaves_no_file(tmp_path: Path) -> None:
    with model_lock(tmp_path, "iris"):
        pass
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_lock_is_seen_by_other_processes_and_freed_when_its_holder_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DeployInProgress), model_lock(tmp_path, "iris"):
            pass
        holder.kill()
    with model_lock(tmp_path, "iris"):
        pass
