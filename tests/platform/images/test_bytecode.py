"""Byte code that is the same whatever made it."""

import marshal
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asgard.errors import InfrastructureFailed
from asgard.platform import pythons
from asgard.platform.images import bytecode, compile_all
from asgard.platform.images.base import Base
from asgard.platform.images.bytecode import Compiler
from asgard.serving.processes import alive

from .conftest import ignore

WORDS = [f"word{number}" for number in range(40)]
NAMES = [f"name{number}" for number in range(20)]


def module(number: int) -> str:
    """Functions with sets that are equal, of strings that are nowhere else."""
    sets = [", ".join(map(repr, WORDS[start % 5 : 20 : 1 + start % 2])) for start in range(20)]
    functions = [
        f"def f{at}(x, name{at}=0):\n    return x in {{{text}}}, {number}, {at}" for at, text in enumerate(sets)
    ]
    return f"'''Module {number}.'''\nimport os\nvalue = None, 0.5, 12345678901234567890\n" + "\n".join(functions)


def tree(folder: Path) -> Path:
    package = folder / "package"
    package.mkdir(parents=True)
    for number in range(30):
        (package / f"m{number:02}.py").write_text(module(number))
    (package / "template.py").write_text("def {{ name }}():")
    (package / "latin.py").write_bytes(b"# coding: latin-1\ntext = '\xe9'\n")
    (package / "null.py").write_bytes(b"\0")
    return folder


def compiled(folder: Path, command: list[str], seed: str, processes: int, known: list[str]) -> dict[str, bytes]:
    """The byte code of such a tree, by name, made by a process that already knows some strings."""
    program = f"KNOWN = {known}\n{Path(compile_all.__file__).read_text()}"
    run = [*command, "-S", "-W", "ignore", "-c", program, str(tree(folder)), "/app/x", str(processes)]
    subprocess.run(run, env={"PYTHONHASHSEED": seed}, check=True)
    return {path.name: path.read_bytes() for path in sorted((folder / "package" / "__pycache__").iterdir())}


@pytest.mark.parametrize("version", sorted(pythons.installed()))
def test_byte_code_depends_on_nothing_but_its_source(tmp_path: Path, version: str) -> None:
    command = [str(pythons.installed()[version])]
    other = "0" if version == "3.10" else "1"  # 3.10 writes a set in the order of its hashes
    found = [
        compiled(tmp_path / f"{number}", command, seed, processes, known)
        for number, (seed, processes, known) in enumerate(
            [("0", 1, []), ("0", 3, WORDS[:7] + NAMES), (other, 2, WORDS[3:]), (other, 1, NAMES)]
        )
    ]
    assert len(found[0]) == 31
    assert [name for other in found[1:] for name in found[0] if other[name] != found[0][name]] == []


def test_what_is_compiled_does_what_its_source_says() -> None:
    source = module(3).encode()
    names: dict[str, object] = {}
    content = compile_all.compiled(source, "/app/x/package/m.py")
    code = marshal.loads(content[16:])
    exec(code, names)
    assert code.co_filename == "/app/x/package/m.py"
    assert names["f0"]("word7") == (True, 3, 0)  # type: ignore[operator]
    assert names["f0"]("word30") == (False, 3, 0)  # type: ignore[operator]


def test_python_takes_it_without_looking_at_the_source(tmp_path: Path) -> None:
    folder = tree(tmp_path / "tree")
    bytecode.compile_tree(Compiler((sys.executable,), {}, "any"), folder, "/app/x")
    (folder / "package" / "m00.py").write_text("raise SystemExit('the source was run')")
    program = "import package.m00 as m; print(m.__doc__, m.f0('word7'))"
    run = subprocess.run([sys.executable, "-B", "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert run.stdout == "Module 0. (True, 0, 0)\n"


def test_byte_code_that_came_with_a_package_is_not_kept(tmp_path: Path) -> None:
    folder = tree(tmp_path / "tree")
    (folder / "package" / "__pycache__").mkdir()
    (folder / "package" / "__pycache__" / "gone.cpython-27.pyc").touch()
    bytecode.compile_tree(Compiler((sys.executable,), {}, "any"), folder, "/app/x")
    names = {path.name for path in (folder / "package" / "__pycache__").iterdir()}
    assert len(names) == 31
    assert "gone.cpython-27.pyc" not in names


def test_the_base_images_own_python_compiles(base: Base, cache: Path, tmp_path: Path) -> None:
    """As it would in the image, whatever Python this machine has."""
    compiler = bytecode.compiler(base, "3.11", cache, ignore)
    assert compiler.release == base.contents.pythons["3.11"].release
    assert str(cache) in compiler.command[0]
    bytecode.compile_tree(compiler, tree(tmp_path / "tree"), "/app/x")
    assert len(list((tmp_path / "tree" / "package" / "__pycache__").glob("*.cpython-311.pyc"))) == 31


def test_a_python_that_the_base_image_does_not_have_is_named(base: Base, cache: Path) -> None:
    with pytest.raises(InfrastructureFailed, match=r"has Python 3\.11; the model needs 3\.12") as raised:
        bytecode.compiler(base, "3.12", cache, ignore)
    assert raised.value.reason == "UnfitBaseImage"


def test_a_compiler_that_fails_is_reported(tmp_path: Path) -> None:
    failing = shutil.which("false")
    assert failing is not None
    with pytest.raises(InfrastructureFailed, match="could not be compiled"):
        bytecode.compile_tree(Compiler((failing,), {}, "any"), tree(tmp_path), "/app/x")


def test_compiling_that_takes_too_long_is_ended_with_all_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "python"
    slow.write_text(f"#!/bin/sh\nsleep 600 & echo $! >{tmp_path}/child; wait\n")
    slow.chmod(0o755)
    monkeypatch.setattr(bytecode, "_SECONDS", 1)
    with pytest.raises(InfrastructureFailed) as raised:
        bytecode.compile_tree(Compiler((str(slow),), {}, "any"), tree(tmp_path / "tree"), "/app/x")
    assert raised.value.log_tail == ["not done after 1 s"]
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)
