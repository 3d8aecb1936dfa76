"""Runs scripts in processes forked from one that has done their imports. Standard library only, Linux only.

    python script_template.py CONTROL MARK IDLE_SECONDS MODULE...

An interpreter of an environment runs it, with a bare process environment. For each byte that comes over the socket
CONTROL, with four descriptors, it forks a runner (script_runner.py): its standard input, its standard output, the
script's output, and a pipe with {"script", "folder", "environment"}, which the runner alone reads: what one script is
given is never in the memory of another. Answers are JSON lines: first {"read": names of the environment variables that
the imports have asked for}, then {"pid": of the runner} for each. MARK names the variable of the process environment by
which a script's processes are found; its value here, a placeholder, is as long as a script's.

It ends when CONTROL closes, after IDLE_SECONDS without work, and at once where it is not fit to be forked.
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # this file's folder, whose modules are no script's

import atexit
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import random
import select
import signal
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

MEMORY_LIMIT_BYTES = 1024**3
"""Of its own memory; one whose imports take more does not stay."""

_REAP_SECONDS = 0.5
_FORK_SAFE_THREADS = {"jemalloc_bg_thd"}
"""Of a library with handlers for a fork. (OpenBLAS too has them: its threads end at a fork, and start anew.)"""


class _Recorded(dict[bytes, bytes]):
    """The content of os.environ; knows what it was asked for."""

    def __init__(self, content: dict[bytes, bytes]) -> None:
        super().__init__(content)
        self.asked: set[bytes] = set()

    def __getitem__(self, name: bytes) -> bytes:
        self.asked.add(name)
        return super().__getitem__(name)


def main(control: socket.socket, mark: str, idle_seconds: float, *modules: str) -> Path | None:
    """Fork runners until told to end. In a script's process: returns its path, all else being set up."""
    marked = _initial(mark)
    gc.disable()  # looking at what imports make takes a quarter of their time
    read = _import(modules)
    runner = _beside("script_runner")
    gc.enable()
    gc.collect()
    gc.freeze()  # the collector would write to, and so copy, every page that the scripts share
    if not _is_fit():
        return None
    control.sendall(json.dumps({"read": sorted(read)}).encode() + b"\n")
    poll = select.poll()
    poll.register(control, select.POLLIN)
    runners = 0
    while True:
        idle = not runners
        ready = poll.poll(1000 * (idle_seconds if idle else _REAP_SECONDS))
        runners -= _reap()
        if not ready and not idle:
            continue
        message, descriptors, _flags, _address = socket.recv_fds(control, 1, 4) if ready else (b"", [], 0, None)
        if not message:
            break
        if (pid := os.fork()) == 0:
            os.close(control.detach())
            return _run(runner, (mark, marked), *descriptors)
        runners += 1
        for descriptor in descriptors:
            os.close(descriptor)
        control.sendall(json.dumps({"pid": pid}).encode() + b"\n")
    control.close()
    for _ in range(runners):
        os.wait()
    return None


def _import(modules: Sequence[str]) -> set[str]:
    """Import what can be imported; the names of the variables that were asked for."""
    content = os.environ._data  # type: ignore[attr-defined]
    recorded = _Recorded(content)
    os.environ._data = os.environb._data = recorded  # type: ignore[attr-defined]
    for module in modules:
        with suppress(Exception):  # a script that needs it gets to see why it cannot be
            importlib.import_module(module)
    if "mlflow" in sys.modules:
        with suppress(Exception):  # half a second's work, which MLflow does once in each process that logs a model
            importlib.import_module("mlflow.utils.requirements_utils")._init_packages_to_modules_map()
    os.environ._data = os.environb._data = dict(recorded)  # type: ignore[attr-defined]
    return {os.fsdecode(name) for name in recorded.asked}


def _is_fit() -> bool:
    """Whether nothing runs here that a forked process would miss, and not too much memory is held."""
    if (pid := os.fork()) == 0:
        os._exit(0)  # threads that end at a fork have done so now
    os.waitpid(pid, 0)
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return (
        threading.active_count() == 1
        and sum(name not in _FORK_SAFE_THREADS for name in names) == 1
        and pages * os.sysconf("SC_PAGE_SIZE") < MEMORY_LIMIT_BYTES
    )


def _beside(name: str) -> ModuleType:
    """The module of that name in this file's folder, which is not to be searched for modules."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _initial(name: str) -> int:
    """Address of a variable's value in the process environment as others see it, in /proc/PID/environ."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    address = getenv(name.encode())
    assert isinstance(address, int)
    return address


def _reap() -> int:
    """How many runners have ended since it was last called."""
    ended = 0
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            ended += 1
    return ended


def _run(runner: ModuleType, mark: tuple[str, int], stdin: int, status: int, output: int, request: int) -> Path:
    """In a runner: does not return. In the script's process, which it forks: the script."""
    os.setsid()
    with os.fdopen(request, "rb") as file:
        wanted = json.load(file)
    for number, descriptor in enumerate((stdin, status, output)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    name, address = mark
    ctypes.memmove(address, wanted["environment"][name].encode(), len(os.environ[name]))
    os.chdir(wanted["folder"])
    runner.adopt_orphans()
    if (pid := os.fork()) == 0:
        return _become_script(wanted)
    runner.supervise(pid)
    os._exit(0)


def _become_script(wanted: dict[str, Any]) -> Path:
    """Make this process what `python SCRIPT` in the folder would be."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    # Python itself sets LC_CTYPE at its start in some locales.
    own = {name: value for name, value in os.environ.items() if name == "LC_CTYPE"}
    os.environ.clear()
    os.environ.update(own | wanted["environment"])
    script: Path = Path.cwd() / wanted["script"]
    sys.argv = [wanted["script"]]
    sys.orig_argv = [sys.executable, wanted["script"]]
    sys.path.insert(0, str(script.parent))
    _forget()
    return script


def _forget() -> None:
    """What modules have kept of this process: random states, folders, keys."""
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if tempfile := sys.modules.get("tempfile"):
        tempfile.tempdir = None  # type: ignore[attr-defined]
    if process := sys.modules.get("multiprocessing.process"):
        process.ORIGINAL_DIR = str(Path.cwd())  # type: ignore[attr-defined]
        process.current_process().authkey = os.urandom(32)


def _execute(script: Path) -> NoReturn:
    """Run it as `__main__`, and end as the interpreter does, but for the modules, whose end would take longer.

    Exceptions are shown as the interpreter shows them, without the frames below the script's.
    """
    module = ModuleType("__main__")
    module.__file__ = str(script)
    module.__builtins__ = sys.modules["builtins"]  # type: ignore[attr-defined]
    module.__annotations__ = {}
    module.__cached__ = None  # type: ignore[attr-defined]
    module.__loader__ = SourceFileLoader("__main__", str(script))
    sys.modules["__main__"] = module
    code, interrupted = 0, False
    try:
        exec(compile(script.read_bytes(), script, "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    except SystemExit as error:
        code = _exit_code(error.code)
    except BaseException as error:
        code, interrupted = 1, isinstance(error, KeyboardInterrupt)
        trace = error.__traceback__ and error.__traceback__.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for name in list(vars(module)):
        if name != "__builtins__":
            vars(module)[name] = None
    gc.collect()  # closes files that were left open, and so writes what they hold
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


def _exit_code(code: object) -> int:
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    with suppress(Exception):
        print(code, file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    _script = main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], float(sys.argv[3]), *sys.argv[4:])
    if _script is not None:
        _execute(_script)
