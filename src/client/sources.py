"""The script of a deploy: a file, or a function that is sent as a script of its own."""

import ast
import builtins
import inspect
import os
import symtable
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

Source = str | os.PathLike[str] | Callable[[], Any]
"""Path of a script, or a function without parameters."""

_ALWAYS_THERE: Final = frozenset(dir(builtins)) | {"__file__", "__name__"}


def script(source: Source) -> tuple[str, bytes]:
    """Name and content. Raises OSError for a file that cannot be read, ValueError for what cannot be sent."""
    if not callable(source):
        path = Path(source)
        return path.name, path.read_bytes()
    return f"{getattr(source, '__name__', 'train')}.py", _module(source).encode()


def _module(function: Callable[[], Any]) -> str:
    """A module that defines `function` and calls it."""
    if not inspect.isfunction(function) or function.__name__ == "<lambda>":
        raise ValueError(f"{function!r} is no function written with `def`")
    name = function.__name__
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise ValueError(f"{name} is run by being called: it can be neither async nor a generator")
    required = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if required:
        raise ValueError(f"{name} is called without arguments, so it can have no parameter such as {required[0]}")
    text = _source(function)
    if text is None:
        raise ValueError(f"The source of {name} is not known; put it in a file")
    # Annotations are then not evaluated: what they name need not be there.
    module = f"from __future__ import annotations\n\n\n{text.rstrip()}\n\n\n{name}()\n"
    outside = sorted(set(_global_names(symtable.symtable(module, f"{name}.py", "exec"))) - _ALWAYS_THERE - {name})
    if outside:
        raise ValueError(
            f"{name} is sent by itself and uses {', '.join(outside)} from outside: import and define what it needs "
            "inside it, or put it in a file"
        )
    return module


def _source(function: Callable[[], Any]) -> str | None:
    try:
        text = textwrap.dedent(inspect.getsource(function))
        (found,) = ast.parse(text).body
    except (OSError, SyntaxError, ValueError, tokenize.TokenError):
        return None
    # What `exec` was given has the file name of another text in Python 3.13: of the program that -c was given.
    return text if isinstance(found, ast.FunctionDef) and found.name == function.__name__ else None


def _global_names(table: symtable.SymbolTable) -> Iterator[str]:
    """Names that the code takes from its module: from within functions, and as decorators and defaults."""
    top = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (symbol.is_global() or top) and not symbol.is_imported():
            yield symbol.get_name()
    for child in table.get_children():
        yield from _global_names(child)
