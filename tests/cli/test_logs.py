import gc
import json
import shutil
import signal
import warnings
from pathlib import Path

import pytest

from asgard.cli import logs
from asgard.serving import server_log

from ..waiting import until
from . import processes
from .conftest import Run

PID = 4242


@pytest.fixture
def log(environment: dict[str, str]) -> Path:
    return Path(environment["ASGARD_DATA_DIR"]) / "models" / "iris" / "logs" / "server.log"


def texts(lines: list[str]) -> list[str]:
    return [line.split("] ", 1)[1].rstrip("\n") for line in lines]


def test_the_last_lines_are_shown_also_those_in_files_that_were_set_aside(run: Run, log: Path) -> None:
    write = server_log.open_log(log, max_bytes=500)
    for number in range(60):
        write(PID, f"line {number}")
    assert len(list(log.parent.iterdir())) == 1 + server_log.KEPT_FILES
    assert texts(run("logs", "iris", "-n", "20").stdout.splitlines()) == [f"line {number}" for number in range(40, 60)]
    assert run("logs", "iris", "-n", "0").stdout == ""


def test_a_line_is_shown_as_it_was_printed(run: Run, log: Path) -> None:
    server_log.open_log(log)(PID, "100 % [red]é\u2028x")
    assert texts([run("logs", "iris").stdout]) == ["100 % [red]é\u2028x"]


def test_json_is_an_object_a_line(run: Run, log: Path) -> None:
    write = server_log.open_log(log)
    write(PID, "[1] first")
    write(PID, "second")
    with log.open("a") as file:
        file.write("a stray line\n")
    first, second, stray = map(json.loads, run("logs", "iris", "--json").stdout.splitlines())
    assert (first["pid"], first["line"]) == (PID, "[1] first")
    assert first["time"].endswith("Z")
    assert second["line"] == "second"
    assert stray == {"line": "a stray line"}


@pytest.mark.parametrize("name", ["never-seen", "../models/iris", ".", "Iris", ""])
def test_a_model_that_does_not_serve_here_is_exit_code_4(run: Run, log: Path, name: str) -> None:
    server_log.open_log(log)(PID, "line")
    result = run("logs", name)
    assert result.exit_code == 4
    assert result.stdout == ""
    assert f"data folder {log.parents[3]}. " in result.stderr


def test_following_begins_with_the_last_lines_and_goes_on_across_rotations(log: Path) -> None:
    write = server_log.open_log(log, max_bytes=400)
    for number in range(5):
        write(PID, f"old {number}")
    chunks = logs.read(log, 3, follow=True)
    assert texts(next(chunks)) == ["old 2", "old 3", "old 4"]
    seen: list[str] = []
    for burst in range(20):  # a burst of lines passes one or two files
        for number in range(burst):
            write(PID, f"new {burst} {number}")
        seen += texts(next(chunks))
    assert seen == [f"new {burst} {number}" for burst in range(20) for number in range(burst)]


def test_following_shows_no_half_line(log: Path) -> None:
    log.parent.mkdir(parents=True)
    chunks = logs.read(log, 10, follow=True)
    assert next(chunks) == []
    with log.open("w") as file:
        file.write("2026-11-24T10:00:00.000Z [1] be")
        file.flush()
        assert next(chunks) == []
        file.write("gin\nnext")
        file.flush()
        assert next(chunks) == ["2026-11-24T10:00:00.000Z [1] begin\n"]


def test_following_ends_with_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "models" / "iris" / "logs"
    write = server_log.open_log(folder / "server.log")
    write(PID, "hello")
    with processes.started(["-m", "asgard.cli", "logs", "iris", "-f"], tmp_path) as process:
        assert processes.first_line(process, tmp_path).endswith("hello")
        write(PID, "again")
        assert processes.first_line(process, tmp_path).endswith("again")
        shutil.rmtree(folder)
        assert processes.ended(process) == 0
    assert "iris was destroyed" in processes.errors(tmp_path)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_no_file_is_left_to_be_closed_by_python_which_would_lose_a_ctrl_c(tmp_path: Path) -> None:
    path = tmp_path / "iris" / "server.log"
    write = server_log.open_log(path)
    write(PID, "hello")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        chunks = logs.read(path, 10, follow=True)
        assert "hello" in "".join(next(chunks))
        for _ in range(3):
            assert next(chunks) == []
        path.rename(path.with_name("server.log.1"))
        path.touch()
        assert next(chunks) == []
        chunks.close()
        gc.collect()


def test_ctrl_c_ends_following_in_one_word(tmp_path: Path) -> None:
    write = server_log.open_log(tmp_path / "data" / "models" / "iris" / "logs" / "server.log")
    write(PID, "hello")
    with processes.started(["-m", "asgard.cli", "logs", "iris", "-f"], tmp_path) as process:
        assert processes.first_line(process, tmp_path).endswith("hello")
        process.send_signal(signal.SIGINT)
        assert processes.ended(process) == 130
    assert processes.errors(tmp_path).strip() == "Interrupted."


def test_a_pipe_that_is_closed_early_is_no_defect(tmp_path: Path) -> None:
    write = server_log.open_log(tmp_path / "data" / "models" / "iris" / "logs" / "server.log")
    for number in range(5_000):
        write(PID, f"line {number}")
    with processes.started(["-m", "asgard.cli", "logs", "iris", "-n", "5000"], tmp_path) as process:
        assert processes.first_line(process, tmp_path).endswith("line 0")
        assert process.stdout is not None
        process.stdout.close()
        until(lambda: process.poll() is not None)
        process.stdout = None
    assert "Traceback" not in processes.errors(tmp_path)
    assert "defect" not in processes.errors(tmp_path)
