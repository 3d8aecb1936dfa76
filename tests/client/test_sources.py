import functools
import linecache
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asgard.client.sources import script

LIMIT = 3


def prints(count: "int | np.ndarray" = 2) -> None:
    """A function with all that may be in one."""
    import math
    from pathlib import Path as Folder

    class Row:
        def __init__(self, value: np.ndarray) -> None:
            self.value = value

    def inner(row: Row) -> str:
        return f"{row.value:.1f}"

    try:
        print([inner(Row(math.sqrt(i))) for i in range(count)], Folder(__file__).name)  # type: ignore[arg-type]  # noqa: T201
    except ValueError as error:
        print(error)  # noqa: T201


def recursive(depth: int = 3) -> None:
    if depth:
        recursive(depth - 1)
    else:
        print("end")  # noqa: T201


class Holder:
    def method(self) -> None: ...


def with_parameter(data: Any) -> None: ...


async def asynchronous() -> None: ...


def generator() -> Iterator[int]:
    yield 1


@functools.cache
def decorated() -> None: ...


def uses_a_global() -> int:
    return LIMIT


def uses_an_import_in_a_nested_function() -> Any:
    def inner() -> Any:
        return np.zeros(3)

    return inner()


def default_from_outside(limit: int = LIMIT) -> int:
    return limit


def closure() -> Callable[[], int]:
    outer = 3

    def function() -> int:
        return outer

    return function


def run(source: Callable[[], Any], folder: Path) -> str:
    name, content = script(source)
    (folder / name).write_bytes(content)
    done = subprocess.run([sys.executable, name], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_function_runs_as_a_script(tmp_path: Path) -> None:
    assert run(prints, tmp_path) == "['0.0', '1.0'] prints.py\n"
    assert run(recursive, tmp_path) == "end\n"


def test_a_function_within_another_runs_too(tmp_path: Path) -> None:
    def train() -> None:
        print("within")  # noqa: T201

    assert run(train, tmp_path) == "within\n"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (with_parameter, "no parameter such as data"),
        (Holder().method, "no function written with `def`"),
        (Holder, "no function written with `def`"),
        (lambda: None, "no function written with `def`"),
        (asynchronous, "neither async nor a generator"),
        (generator, "neither async nor a generator"),
        (uses_a_global, "uses LIMIT from outside"),
        (uses_an_import_in_a_nested_function, "uses np from outside"),
        (default_from_outside, "uses LIMIT from outside"),
        (closure(), "uses outer from outside"),
        (eval("lambda: 1"), "no function written with `def`"),
    ],
)
def test_a_function_that_cannot_run_by_itself_is_refused_with_the_reason(
    function: Callable[[], Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        script(function)


def test_a_decorator_from_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="functools"):
        script(decorated.__wrapped__)


@pytest.mark.parametrize("other", [None, "import sys", "def another(): pass", "def typed_in("])
def test_a_function_without_a_source_is_refused(other: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if other is not None:  # as Python 3.13 keeps the program that -c was given
        monkeypatch.setitem(linecache.cache, "<string>", (len(other), None, [f"{other}\n"], "<string>"))
    names: dict[str, Any] = {}
    exec("def typed_in(): pass", names)
    with pytest.raises(ValueError, match="source of typed_in is not known"):
        script(names["typed_in"])


def test_a_file_goes_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_bytes(b"\xef\xbb\xbfprint(1)\r\n")
    assert script(path) == script(str(path)) == ("train.py", path.read_bytes())
    with pytest.raises(FileNotFoundError):
        script(tmp_path / "none.py")
