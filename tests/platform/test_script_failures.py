"""Why a script ended badly, from its wait status and its last lines."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asgard.platform.script_failures import describe, elsewhere

IN_A_TASK_GROUP = """
import asyncio
async def fit():
    raise ValueError("inner")
async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(fit())
asyncio.run(main())
"""


def ended(tmp_path: Path, source: str) -> str:
    (tmp_path / "train.py").write_text(source)
    run = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    status = -run.returncode if run.returncode < 0 else run.returncode << 8
    return describe(source.encode(), "train.py", status, (run.stdout + run.stderr).splitlines())


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("x = 1\nraise ValueError('bad value')\n", "train.py failed at line 2: ValueError: bad value"),
        ("def f():\n    raise KeyError\n\nf()\n", "train.py failed at line 2: KeyError"),
        ("import json\n\njson.loads('{')\n", "train.py failed at line 3: json.decoder.JSONDecodeError: Expecting"),
        ("x = 1\ny = = 2\n", "train.py failed at line 2: SyntaxError: invalid syntax"),
        ("import no_such\n", "train.py failed at line 1: ModuleNotFoundError: No module named 'no_such'"),
        ("import sys\nsys.exit('no data today')\n", "train.py exited with code 1: no data today"),
        ("import sys\nsys.exit(3)\n", "train.py exited with code 3."),
        ("import os\nprint('last words', flush=True)\nos._exit(4)\n", "train.py exited with code 4: last words"),
        ("try:\n    1 / 0\nexcept Exception:\n    raise OSError('x')\n", "train.py failed at line 4: OSError: x"),
        ("raise ValueError('\\nAll fits failed.')\n", "train.py failed at line 1: ValueError: All fits failed."),
        ("raise TypeError('one of:\\n- A\\n not B')\n", "train.py failed at line 1: TypeError: one of: - A not B"),
        ("raise KeyError('a\\nb')\n", "train.py failed at line 1: KeyError: 'a\\nb'"),
        ("raise ExceptionGroup('two', [KeyError(1), KeyError(2)])\n", "train.py failed at line 1: ExceptionGroup: two"),
        (IN_A_TASK_GROUP, "train.py failed at line 4: ValueError: inner"),
    ],
)  # fmt: skip
def test_the_end_of_a_script_in_a_sentence(tmp_path: Path, source: str, told: str) -> None:
    assert ended(tmp_path, source).startswith(told)


def test_what_mlflow_prints_as_a_run_ends_is_not_why_a_script_ended() -> None:
    printed = ["too bad a model", "🏃 View run a at: http://h/#/1", "🧪 View experiment at: http://h/#/1"]
    assert describe(b"", "train.py", 1 << 8, printed) == "train.py exited with code 1: too bad a model"
    raised = ["Traceback (most recent call last):", '  File "/p/train.py", line 1, in <module>', "ValueError: "]
    assert describe(b"", "train.py", 1 << 8, [*raised, "none fits", *printed[1:]]) == (
        "train.py failed at line 1: ValueError: none fits"
    )


def test_what_mlflow_logs_is_not_why_a_script_exited() -> None:
    printed = [
        "2026/11/28 07:49:37 INFO mlflow.utils.environment: Successfully exported 92 requirements from uv project.",
        "2026/11/28 07:49:37 WARNING mlflow.utils.environment: Failed to resolve installed pip version.",
    ]
    assert describe(b"", "train.py", 3 << 8, printed) == "train.py exited with code 3."
    assert describe(b"", "train.py", 3 << 8, ["too bad a model", *printed]) == (
        "train.py exited with code 3: too bad a model"
    )


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("os._exit(3)", "train.py exited with code 3."),
        ("raise ValueError('bad')", "train.py failed at line 4: ValueError: bad"),
    ],
)
def test_what_python_says_as_it_tidies_up_shared_memory_is_not_why_a_script_ended(
    tmp_path: Path, end: str, told: str
) -> None:
    name = f"asgard-{os.getpid()}"
    source = f"""import os
from multiprocessing.shared_memory import SharedMemory
left = SharedMemory({name!r}, create=True, size=1)
{end}
"""
    assert ended(tmp_path, source) == told


def test_an_earlier_traceback_is_not_why_a_script_exited_with_a_code_of_its_own(tmp_path: Path) -> None:
    source = (
        "import sys, traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()\nsys.exit(7)\n"
    )
    assert ended(tmp_path, source).startswith("train.py exited with code 7")


def test_a_script_that_fails_at_another_mlflow_is_told_to_use_this_one(tmp_path: Path) -> None:
    source = "import mlflow\nmlflow.set_tracking_uri('no-such-scheme://host')\nmlflow.search_experiments()\n"
    told = ended(tmp_path, source)
    assert told.startswith("train.py failed at line 3: mlflow.")
    assert told.endswith(elsewhere(source.encode()))


@pytest.mark.parametrize(
    ("source", "package"),
    [
        ("import no_such\n", "no_such"),
        ("import no_such.part\n", "no_such"),
        ("raise ModuleNotFoundError(\"No module named 'sklearn'\")\n", "scikit-learn"),
        ("import json.part\n", None),
        ("raise ImportError('sklearn')\n", None),
    ],
)
def test_a_script_that_lacks_a_package_is_told_to_require_it(tmp_path: Path, source: str, package: str | None) -> None:
    told = ended(tmp_path, source)
    assert (f" Add {package} to requirements;" in told) == (package is not None)
    assert ("requirements" in told) == (package is not None)


@pytest.mark.parametrize(
    ("source", "hinted"),
    [
        ("open('data.csv')\n", True),
        ("open('/home/me/data')\n", True),
        ("import subprocess\nsubprocess.run(['no-such-program'])\n", False),
    ],
)
def test_a_script_that_lacks_a_file_is_told_that_none_is_sent_with_it(
    tmp_path: Path, source: str, hinted: bool
) -> None:
    told = ended(tmp_path, source)
    assert "FileNotFoundError" in told
    assert told.endswith(". Only the script is sent: it must make or download the files that it reads.") == hinted


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_is_named(number: signal.Signals) -> None:
    assert describe(b"", "train.py", int(number), []).startswith(
        f"train.py was killed by signal {int(number)} ({number.name})."
    )


def test_a_script_whose_mlflow_is_newer_than_the_server_is_told_which_to_ask_for(tmp_path: Path) -> None:
    source = (
        "from mlflow.exceptions import MlflowException\n"
        "raise MlflowException('API request to endpoint /api/2.0/mlflow/logged-models failed with error code 404')\n"
    )
    assert ended(tmp_path, source).endswith("The MLflow server is older than MLflow 3: add mlflow<3 to requirements.")


@pytest.mark.skipif(sys.platform != "linux", reason="no other system has signals without a name")
def test_a_signal_without_a_name_is_described() -> None:
    assert describe(b"", "train.py", 37, []) == "train.py was killed by signal 37 (Real-time signal 3)."


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import mlflow\nmlflow.set_tracking_uri('http://127.0.0.1:5000')\n", "line 2 calls set_tracking_uri"),
        ("from mlflow import set_tracking_uri\n\nset_tracking_uri('file:./mlruns')\n", "line 3 calls"),
        ("import mlflow, os\nmlflow.set_tracking_uri(os.environ['MLFLOW_TRACKING_URI'])\n", ""),
        ("import os\nos.environ['MLFLOW_TRACKING_URI'] = 'http://mlflow:5000'\n", "line 2 sets MLFLOW_TRACKING_URI"),
        ("import os\nuri = os.environ['MLFLOW_TRACKING_URI']\n", ""),
        ("import mlflow\nprint('set_tracking_uri')\n", ""),
        ("x = (\n", ""),
    ],
)
def test_a_script_that_sends_its_runs_elsewhere_is_told_so(source: str, told: str) -> None:
    found = elsewhere(source.encode())
    assert told in found
    assert bool(told) == bool(found)
