"""What can be said of the Dockerfile without the images it starts from: that it fits the code."""

import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner

from asgard.cli import app
from asgard.platform import engine_install, pythons
from asgard.platform.images import layout
from asgard.settings import Settings

CHECKOUT = Path(__file__).parents[3]
TEXT = (CHECKOUT / "Dockerfile").read_text()


class Step(NamedTuple):
    """One instruction. `target`: the stage it belongs to."""

    target: str
    name: str
    rest: str


def steps() -> list[Step]:
    lines = [line for line in TEXT.splitlines() if not line.startswith("#")]
    found, target = [], ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            target = rest.rpartition(" AS ")[2]
        if name:
            found.append(Step(target, name, " ".join(rest.split())))
    return found


def of(target: str, name: str) -> list[str]:
    return [step.rest for step in steps() if (step.target, step.name) == (target, name)]


def variables() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in of("api", "ENV") for pair in shlex.split(line))


def test_it_has_the_api_and_a_base_for_models() -> None:
    assert {step.target for step in steps()} == {"", "api", "model-base"}


def test_both_start_from_what_models_are_built_on_by_default() -> None:
    (python,) = of("", "ARG")
    default = Settings.model_fields["base_image"].default
    for target in ("api", "model-base"):
        (image,) = of(target, "FROM")
        named = image.partition(" AS ")[0].replace("${PYTHON}", "{python}")
        assert default.endswith(named)
    version = python.removeprefix("PYTHON=")
    assert version in pythons.SUPPORTED
    required = re.search(r'requires-python = "(.*)"', (CHECKOUT / "pyproject.toml").read_text())
    assert required is not None
    assert f"{version}.9" in SpecifierSet(required[1])


def test_nobody_in_them_is_root() -> None:
    for target in ("api", "model-base"):
        assert of(target, "USER") == [layout.USER]
        last = [step.name for step in steps() if step.target == target and step.name in ("RUN", "COPY", "USER")][-1]
        assert last == "USER"
        number = layout.USER.partition(":")[0]
        assert any(f"--uid {number}" in run and f"--gid {number}" in run for run in of(target, "RUN"))


def test_the_api_is_served_as_the_command_line_knows_it() -> None:
    (command,) = of("api", "CMD")
    program, name, *options = json.loads(command)
    assert (program, name, options) == ("asgard", "serve", ["--host", "0.0.0.0"])
    known = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert "--host" in known.output
    (port,) = of("api", "EXPOSE")
    assert re.search(rf"\[default: {port}\]", known.output)


def test_all_that_lasts_is_in_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    (volume,) = of("api", "VOLUME")
    found = variables()
    for name, value in found.items():
        if name not in ("PATH", "PYTHONUNBUFFERED"):
            assert value == volume or value.startswith(f"{volume}/")
            monkeypatch.setenv(name, value)
    settings = Settings()
    for folder in (settings.data_dir, settings.cache_dir, settings.stacks_dir, settings.feast_repo_path):
        assert folder.is_relative_to(volume)
    assert Path(found["UV_CACHE_DIR"]).is_relative_to(settings.cache_dir)


def test_the_pulumi_cli_is_found_where_it_is_installed() -> None:
    installed = next(run for run in of("api", "RUN") if "engine_install" in run)
    cache = re.search(r"ASGARD_CACHE_DIR=(\S+) python -m asgard\.platform\.engine_install", installed)
    assert cache is not None
    assert f"{cache[1]}/pulumi/{engine_install.VERSION}/bin" in variables()["PATH"].split(":")


def test_what_is_copied_is_there_and_not_ignored() -> None:
    copied = [source for line in of("api", "COPY") for source in line.split()[:-1]]
    assert sorted(copied) == ["README.md", "pyproject.toml", "src", "uv.lock"]
    assert all((CHECKOUT / source).exists() for source in copied)
    ignored = (CHECKOUT / ".dockerignore").read_text().split()
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(copied)


def test_uv_is_the_one_of_the_lock() -> None:
    script = re.search(r"sed -n '(.*?)' uv\.lock", TEXT)
    assert script is not None
    assert script[1] in (CHECKOUT / "tools" / "install-uv.sh").read_text()
