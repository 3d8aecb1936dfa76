import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(TOOLS / "install-uv.sh", folder / "tools")
    shutil.copy(TOOLS.parent / "uv.lock", folder)
    return folder


def put_uv(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'uv {version} (linux)'\n")
    path.chmod(0o755)
    return path


def put_python(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def install(checkout: Path, bin_dir: Path) -> subprocess.CompletedProcess[str]:
    """With `bin_dir` before everything else, and no way to another index than none."""
    return subprocess.run(
        ["sh", "tools/install-uv.sh"],
        cwd=checkout,
        env={"PATH": f"{bin_dir}{os.pathsep}/usr/bin{os.pathsep}/bin", "HOME": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("version", ["0.8.0", "0.13.9", "1.0.2"])
def test_a_uv_on_path_is_used(checkout: Path, tmp_path: Path, version: str) -> None:
    uv = put_uv(tmp_path / "bin" / "uv", version)
    assert install(checkout, tmp_path / "bin").stdout == f"{uv}\n"
    assert not (checkout / ".tools").exists()


def test_a_uv_on_path_that_is_too_old_is_left_for_the_one_in_tools(checkout: Path, tmp_path: Path) -> None:
    put_uv(tmp_path / "bin" / "uv", "0.4.30")
    own = put_uv(checkout / ".tools" / "uv" / "bin" / "uv", "0.13.9")
    assert install(checkout, tmp_path / "bin").stdout == f"{own}\n"


def test_where_there_is_none_the_locked_version_is_installed_by_the_first_way_that_works(
    checkout: Path, tmp_path: Path
) -> None:
    """A python3 without venv, whose pip has --target."""
    bin_dir = tmp_path / "bin"
    put_uv(bin_dir / "uv", "0.4.30")
    made = put_uv(tmp_path / "made" / "uv", "0.13.9")
    record = tmp_path / "record"
    put_python(
        bin_dir / "python3",
        f'echo "$@" >>\'{record}\'; [ "$3" = install ] && mkdir -p "$5/bin" && cp \'{made}\' "$5/bin/uv"',
    )
    done = install(checkout, bin_dir)
    assert done.stdout == f"{checkout}/.tools/uv/bin/uv\n", done.stderr
    first, second = record.read_text().splitlines()
    assert first.startswith("-m venv")
    assert second.startswith(f"-m pip install --target {checkout}/.tools/uv uv==")
    assert second.rpartition("==")[2] in (checkout / "uv.lock").read_text()


def test_the_newest_final_pip_is_taken_from_an_index_page() -> None:
    newest_wheel = runpy.run_path(str(TOOLS / "fetch_pip.py"))["newest_wheel"]
    page = """
    <a href="../../packages/pip-9.0.3-py2.py3-none-any.whl#sha256=00">pip-9.0.3-py2.py3-none-any.whl</a>
    <a href="../../packages/pip-9.1-py3-none-any.whl#sha256=11">x</a>
    <a href="../../packages/pip-26.3-py3-none-any.whl#sha256=22" data-requires-python="&gt;=3.9">x</a>
    <a href="../../packages/pip-27.0b1-py3-none-any.whl#sha256=33">x</a>
    <a href="../../packages/pip-26.3.tar.gz#sha256=44">x</a>
    """
    found = newest_wheel(page, "https://pypi.org/simple/pip/")
    assert found == "https://pypi.org/packages/pip-26.3-py3-none-any.whl#sha256=22"
