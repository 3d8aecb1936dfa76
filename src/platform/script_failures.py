"""Why a script ended badly, in a sentence."""

import ast
import os
import re
import signal
from collections.abc import Sequence
from itertools import dropwhile
from typing import Final

from . import syntax
from .conflicts import PACKAGES

_FRAME: Final = re.compile(r'  File "(.+)", line (\d+)')
_RAISED: Final = re.compile(r"([A-Za-z_][\w.]*)(: .*)?")
_LACKS: Final = re.compile(r": ModuleNotFoundError: No module named '(\w+)'")
_NO_FILE: Final = re.compile(r": FileNotFoundError: \[Errno 2\] No such file or directory: '[^']*[./]")
_OF_MLFLOW_3: Final = re.compile(r"API request to endpoint \S+/mlflow/logged-models\S* failed with error code 404")
_ASIDE: Final = re.compile(
    r"🏃 View run |🧪 View experiment |\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (INFO|WARNING) mlflow\b"
    r"|.*resource_tracker\.py:\d+: UserWarning: |  warnings\.warn\("
)
"""How lines begin that MLflow prints as a model is logged and a run ends, and Python as it tidies up shared memory."""
_GROUP_RULE: Final = re.compile(r" +\+[-+]")
_GROUP_MARGIN: Final = re.compile(r" +\| ?")
"""How lines begin in the traceback of an exception group: the rules between its exceptions, and all others."""
_MAX_CHARACTERS: Final = 300


def describe(script: bytes, script_name: str, status: int, tail: Sequence[str]) -> str:
    """What a wait status (as `os.wait` gives it) other than 0 means. `tail`: the last lines that the script printed."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hint = " The machine may have run out of memory." if number == signal.SIGKILL else ""
        return f"{script_name} was killed by signal {number} ({_signal_name(number)}).{hint}"
    if (raised := _raised(script_name, tail)) and os.WEXITSTATUS(status) == 1:
        return raised + (_hint(raised) or (elsewhere(script) if ": mlflow." in raised else ""))
    last = next((line for line in reversed(tail) if line.strip() and not _ASIDE.match(line)), "")
    return f"{script_name} exited with code {os.WEXITSTATUS(status)}" + (f": {_short(last)}" if last else ".")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # between SIGRTMIN and SIGRTMAX none has a name
        return signal.strsignal(number) or "unknown"


def _hint(raised: str) -> str:
    """What to do where an import, a file or MLflow 3 was not found; else nothing."""
    if found := _LACKS.search(raised):
        package = PACKAGES.get(found[1].lower(), found[1])
        return (
            f". Add {package} to requirements; a module of your own belongs in the script, the only file that is sent."
        )
    if _NO_FILE.search(raised):
        return ". Only the script is sent: it must make or download the files that it reads."
    if _OF_MLFLOW_3.search(raised):
        return " The MLflow server is older than MLflow 3: add mlflow<3 to requirements."
    return ""


def elsewhere(script: bytes) -> str:
    """A sentence, after a space, where the script's own code sends its runs to another MLflow; else nothing."""
    try:
        nodes = [node for node in ast.walk(syntax.tree(script)) if isinstance(node, ast.Call | ast.Assign)]
    except (SyntaxError, ValueError):
        return ""
    for node in nodes:
        if does := _redirects(node):
            return (
                f" Its line {node.lineno} {does}: leave that out, as only the MLflow that "
                "MLFLOW_TRACKING_URI names when a script starts is looked at."
            )
    return ""


def _redirects(node: ast.Call | ast.Assign) -> str | None:
    """What it does to send runs elsewhere; None: it does not."""
    if isinstance(node, ast.Assign):
        names = [getattr(target.slice, "value", None) for target in node.targets if isinstance(target, ast.Subscript)]
        return "sets MLFLOW_TRACKING_URI" if "MLFLOW_TRACKING_URI" in names else None
    name = getattr(node.func, "attr", getattr(node.func, "id", None))
    called = name == "set_tracking_uri" and "MLFLOW_TRACKING_URI" not in ast.unparse(node)
    return "calls set_tracking_uri" if called else None


def _raised(script_name: str, tail: Sequence[str]) -> str | None:
    """The exception that ended the script, with the innermost line of the script itself; None without a traceback.

    Of a group that is the last one in it that has a traceback, else the group.
    """
    if any(map(_GROUP_RULE.match, tail)):
        tail = [_GROUP_MARGIN.sub("", line, count=1) for line in tail if not _GROUP_RULE.match(line)]
    frames = [
        (index, match) for index, line in enumerate(tail) if (match := _FRAME.match(line)) and match[1] != "<string>"
    ]
    if not frames:
        return None
    # Below the last frame: its source line and carets, indented, then the exception.
    below = [line for line in tail[frames[-1][0] + 1 :] if line and not _ASIDE.match(line)]
    exception = list(dropwhile(lambda line: line.startswith(" "), below))
    if not exception or not _RAISED.match(exception[0]):
        return None
    said = " ".join(map(str.strip, exception)) if exception[0].rstrip().endswith(":") else exception[0]
    own = [match for _, match in frames if os.path.basename(match[1]) == script_name]  # noqa: PTH119 - text, not a file
    line = f" at line {own[-1][2]}" if own else ""
    return f"{script_name} failed{line}: {_short(said)}"


def _short(line: str) -> str:
    return line if len(line) <= _MAX_CHARACTERS else f"{line[:_MAX_CHARACTERS]}…"
