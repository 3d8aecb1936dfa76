"""What a script prints, in any pieces and shapes."""

import io

import pytest

from asgard.platform.script_output import LINE_CHARACTERS, ScriptOutput


class Printed:
    def __init__(self, limit: int = 10**9) -> None:
        self.file = io.BytesIO()
        self.lines: list[str] = []
        self.output = ScriptOutput(self.file, limit, self.lines.append)

    def feed(self, *pieces: bytes) -> list[str]:
        for piece in pieces:
            self.output.feed(piece)
        self.output.close()
        return self.lines


def test_lines_come_as_soon_as_they_end() -> None:
    printed = Printed()
    printed.output.feed(b"one\ntw")
    assert printed.lines == ["one"]
    printed.output.feed(b"o\n")
    assert printed.lines == ["one", "two"]


def test_blank_lines_and_a_last_line_without_an_end_are_kept() -> None:
    assert Printed().feed(b"one\n\nlast") == ["one", "", "last"]


def test_nothing_printed_is_no_line() -> None:
    assert Printed().feed() == []
    assert Printed().feed(b"one\n") == ["one"]


def test_windows_line_ends_are_line_ends() -> None:
    assert Printed().feed(b"one\r", b"\ntwo\r\n") == ["one", "two"]


def test_characters_that_arrive_in_two_pieces_are_whole() -> None:
    encoded = "Ωmega\n".encode()
    assert Printed().feed(encoded[:1], encoded[1:]) == ["Ωmega"]


def test_invalid_bytes_are_replaced_in_lines_and_kept_in_the_file() -> None:
    printed = Printed()
    assert printed.feed(b"\xff\xfe ok\n") == ["\ufffd\ufffd ok"]
    assert printed.file.getvalue() == b"\xff\xfe ok\n"


def test_a_long_line_comes_in_pieces_that_make_up_the_whole() -> None:
    lines = Printed().feed(b"x" * (3 * LINE_CHARACTERS + 5), b"\nend\n")
    assert "".join(lines) == "x" * (3 * LINE_CHARACTERS + 5) + "end"
    assert max(map(len, lines)) == LINE_CHARACTERS


def test_a_progress_bar_shows_its_first_and_last_state_and_not_every_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgard.platform.script_output.time.monotonic", lambda: 1000.0)
    states = [f"\r{percent}%".encode() for percent in range(101)]
    assert Printed().feed(*states, b"\ndone\n") == ["0%", "100%", "done"]


def test_a_progress_bar_shows_a_state_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(1000, 2000))
    monkeypatch.setattr("asgard.platform.script_output.time.monotonic", lambda: float(next(seconds)))
    assert Printed().feed(b"\r1%", b"\r2%", b"\r3%", b"\n") == ["1%", "2%", "3%"]


def test_the_tail_holds_the_last_fifty_lines() -> None:
    printed = Printed()
    printed.feed(*(f"{number}\n".encode() for number in range(100)))
    assert list(printed.output.tail) == [str(number) for number in range(50, 100)]


def test_what_passes_the_limit_is_dropped() -> None:
    printed = Printed(limit=10)
    printed.feed(b"12345\n")
    assert not printed.output.passed_limit
    printed.feed(b"67890\n")
    assert printed.output.passed_limit
    assert printed.file.getvalue() == b"12345\n6789"
