"""The comparison of model servers, in its short form: that it runs, that all answer alike and that none refuses."""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "serving.py"


def test_every_server_answers_what_the_model_predicts_and_refuses_nothing() -> None:
    done = subprocess.run([sys.executable, BENCH, "--short"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[0].removeprefix("| ") for row in rows] == [
        "forest, 1 row a request",
        "Asgard",
        "Asgard, not compiled",
        "Asgard, echo",
        "bare httptools, echo",
        "bare ASGI",
    ]
    assert all(float(row[1].split()[0].replace(",", "")) > 0 for row in rows[1:])
