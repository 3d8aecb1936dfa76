"""Compiles the modules below a folder, to the same bytes whatever ran before: for the base image's own Python.

`python -S -c <this text> FOLDER PREFIX PROCESSES`; PREFIX is where the folder will be in the image. The standard
library's compileall gave other bytes for another number of processes: whether equal constants are one object, and
marshalled as one, depends on which strings the process knows already and on what else refers to them. Before Python
3.11 a set is written in the order of its hashes, which is fixed by PYTHONHASHSEED but for None's.
"""

import importlib.util
import marshal
import os
import sys
from pathlib import Path
from types import CodeType

_HASH_BASED_UNCHECKED = (1).to_bytes(4, "little")
"""Flags of a .pyc that is never compared with its source (PEP 552)."""

_PARTS = (
    "co_consts", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_filename", "co_name", "co_qualname",
    "co_linetable", "co_exceptiontable",
)  # fmt: skip


def compiled(source: bytes, name: str) -> bytes:
    """The content of a module's .pyc. Raises what compiling raises."""
    code = _with_equal_sets_as_one(compile(source, name, "exec", dont_inherit=True), {})
    held: list[object] = []
    _hold(code, held)
    return b"".join(
        (importlib.util.MAGIC_NUMBER, _HASH_BASED_UNCHECKED, importlib.util.source_hash(source), marshal.dumps(code))
    )


def _with_equal_sets_as_one(code: CodeType, known: dict[tuple[str, ...], object]) -> CodeType:
    """The compiler makes copies of equal sets where it meets their strings for the first time in the process."""
    constants: list[object] = []
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            constants.append(_with_equal_sets_as_one(constant, known))
        elif isinstance(constant, frozenset):
            parts = sorted(constant, key=repr)
            constants.append(known.setdefault(tuple(map(repr, parts)), frozenset(parts)))
        else:
            constants.append(constant)
    return code.replace(co_consts=tuple(constants))


def _hold(value: object, held: list[object]) -> None:
    """Refer to everything once more: what only one other refers to is marshalled without a mark to refer back to."""
    held.append(value)
    if isinstance(value, CodeType):
        for name in _PARTS:
            _hold(getattr(value, name, None), held)
    elif isinstance(value, tuple | frozenset):
        for part in value:
            _hold(part, held)


def _compile(modules: list[Path], folder: Path, prefix: str) -> None:
    for path in modules:
        source = path.read_bytes()
        try:
            content = compiled(source, f"{prefix}/{path.relative_to(folder).as_posix()}")
        except Exception:  # noqa: S112 - templates and code for other Pythons, which nobody imports
            continue
        target = Path(importlib.util.cache_from_source(str(path), optimization=""))
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)


def main() -> int:
    """Compile in several processes; the exit code."""
    folder, prefix, processes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    modules = sorted(folder.rglob("*.py"))
    children = []
    for number in range(processes):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _compile(modules[number::processes], folder, prefix)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
