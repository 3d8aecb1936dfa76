import subprocess
import sys
from importlib.metadata import version

import pytest

import asgard.cli
from asgard.cli import failures, help_text, main

from .conftest import Run

COMMANDS = ["serve", "deploy", "models", "model", "status", "logs", "rollback", "destroy", "pulumi"]


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version").stdout == f"asgard {version('asgard')}\n"


def test_python_m_is_the_same_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "asgard.cli", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"asgard {version('asgard')}\n"


def test_help_names_all_commands_and_exit_codes(run: Run) -> None:
    shown = run("--help", COLUMNS="200").stdout
    assert all(command in shown for command in COMMANDS)
    assert all(f"{code} {meaning}" in shown for code, meaning in help_text.EXITS.items())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example_exit_codes_and_variables(run: Run, command: str) -> None:
    shown = run(command, "--help", COLUMNS="200").stdout
    assert f"asgard {command}" in shown.partition("Try:")[2]
    assert f"2 {help_text.EXITS[2]}" in shown.partition("Exit codes")[2]
    assert "ASGARD_" in shown.partition("Environment variables")[2]


def test_the_help_of_rollback_says_which_version_serves_without_one(run: Run) -> None:
    assert "the one before what serves" in run("rollback", "--help", COLUMNS="200").stdout


@pytest.mark.parametrize("command", ["models", "model", "status", "logs"])
def test_every_reading_command_has_json(run: Run, command: str) -> None:
    assert "--json" in run(command, "--help").stdout


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    result = run("deplyo")
    assert result.exit_code == 2
    assert "deploy" in result.stderr


def test_a_defect_is_told_in_words_with_its_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise KeyError("x")

    monkeypatch.setattr(asgard.cli, "app", broken)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == failures.FAILED
    told = capsys.readouterr().err
    assert "KeyError: 'x'" in told
    assert "test_main.py, line" in told
    assert "Traceback" not in told
