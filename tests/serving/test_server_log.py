"""The log's form and size."""

import re
from pathlib import Path

from asgard.serving.server_log import KEPT_FILES, open_log


def test_a_line_has_the_time_and_the_process(tmp_path: Path) -> None:
    write = open_log(tmp_path / "logs" / "server.log")
    write(42, "100 % of it %s")
    line = (tmp_path / "logs" / "server.log").read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[42\] 100 % of it %s\n", line)


def test_the_newest_lines_are_kept_in_files_of_bounded_number_and_size(tmp_path: Path) -> None:
    write = open_log(tmp_path / "server.log", max_bytes=1000)
    for number in range(1000):
        write(1, f"line {number}")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["server.log", *(f"server.log.{n}" for n in range(1, KEPT_FILES + 1))]
    assert all(file.stat().st_size <= 1000 for file in files)
    assert "line 999" in files[0].read_text()
    assert "line 0\n" not in "".join(file.read_text() for file in files)
