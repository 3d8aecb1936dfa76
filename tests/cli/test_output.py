"""What commands print."""

import sys

import pytest

from asgard.cli.output import print_json, print_table


def test_where_the_shell_closed_the_output_nothing_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    print_table(["name"], [["iris"]])
    print_json({"name": "iris"})
