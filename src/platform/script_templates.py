"""The processes that scripts are forked from, one an environment: whom they serve, their number, their end.

Their own side is script_template.py, and what a script in a forked process sees.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import tomllib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from packaging.utils import canonicalize_name

from .. import naming
from . import syntax
from .environments import Environment

MAX_TEMPLATES: Final = 4
"""The one that was not needed for the longest time ends first."""

IDLE_SECONDS: Final = 900.0
"""How long one without work stays."""

START_SECONDS: Final = 300.0
"""A fresh interpreter would take as long on a machine that is this busy."""

_ANSWER_SECONDS: Final = 10.0
_SOURCE: Final = Path(__file__).with_name("script_template.py")
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

_MODULES: Final[Mapping[str, Sequence[str]]] = {
    "numpy": ("numpy",),
    "scipy": ("scipy.special",),
    "pandas": ("pandas",),
    "mlflow": ("mlflow", "mlflow.pyfunc"),
    "mlflow-skinny": ("mlflow", "mlflow.pyfunc"),
    "scikit-learn": ("mlflow.sklearn", "sklearn.ensemble", "sklearn.datasets", "sklearn.model_selection", "skops.io"),
    "xgboost": ("xgboost", "mlflow.xgboost"),
    "lightgbm": ("lightgbm", "mlflow.lightgbm"),
    "statsmodels": ("statsmodels.api", "mlflow.statsmodels"),
}
"""What a script imports that a model needs, by requirement; libraries that survive a fork alone."""

_AT_START: Final = re.compile(
    r"(PYTHON|LD_|MALLOC_|JE_|GLIBC_|LC_|OMP_|GOMP_|KMP_|MKL_|OPENBLAS_|GOTO_|BLIS_|VECLIB_|ARROW_|OPENSSL_|CUDA_|TBB_"
    r"|NUMBA_|NUMEXPR_)\w+|TZ|LANG|LANGUAGE|LOCPATH|NLSPATH|GCONV_PATH"
)
"""Variables that only a fresh interpreter, or a library's native part at its load, reads."""

_TOUCHES_VARIABLES: Final = re.compile(r"environ|putenv")
_WORD: Final = re.compile(r"\w+")
_OF_EVERY_SCRIPT: Final = frozenset({"PATH", "HOME"})


@dataclass
class _Template:
    process: subprocess.Popen[bytes]
    control: socket.socket
    answers: IO[bytes]
    read: frozenset[str]
    """Variables that its imports have asked for."""

    def fork(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> int:
        """The runner's process id. Raises OSError where the template does not answer."""
        theirs, ours = os.pipe()
        with os.fdopen(ours, "wb") as file:
            try:
                socket.send_fds(self.control, [b"f"], [*descriptors, theirs])
            finally:
                os.close(theirs)
            pid = int(_answer(self.answers)["pid"])
            file.write(json.dumps(request).encode())
        return pid

    def end(self, *, at_once: bool = False) -> None:
        """Runners that it has forked go on."""
        if at_once:
            self.process.kill()
        self.answers.close()
        self.control.close()


@dataclass
class _Place:
    """Of one environment. `unfit`: no template of it can be forked."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    template: _Template | None = None
    unfit: bool = False

    def end(self) -> None:
        with self.lock:
            if self.template is not None:
                self.template.end()
            self.template = None


class ScriptTemplates:
    """Processes that have done an environment's imports; scripts are forked from them. They end with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: OrderedDict[Path, _Place] = OrderedDict()

    def fork(
        self,
        environment: Environment,
        folder: Path,
        script_name: str,
        variables: Mapping[str, str],
        posted: Iterable[str],
        descriptors: Sequence[int],
    ) -> int | None:
        """Start the script in a runner that has these descriptors; gives the runner's process id.

        None: only a fresh interpreter would do. `posted`: names of the variables that are the deploy's own.
        `descriptors`: the runner's standard input and output, and the script's output.
        """
        named = {*posted, *_sets((folder / script_name).read_bytes())}
        if sys.platform != "linux" or any(map(_AT_START.fullmatch, named)):
            return None
        request = {"script": script_name, "folder": str(folder), "environment": dict(variables)}
        place = self._place(environment.path)
        with place.lock:
            for _ in range(2):  # one that had no work for long has ended
                if place.template is None and not place.unfit:
                    place.template, place.unfit = _start(environment, folder)
                if place.template is None or named & place.template.read:
                    return None
                try:
                    return place.template.fork(request, descriptors)
                except (OSError, ValueError):
                    place.template.end(at_once=True)
                    place.template = None
        return None

    def close(self) -> None:
        """End them all."""
        with self._lock:
            places, self._places = self._places, OrderedDict()
        for place in places.values():
            place.end()

    def _place(self, path: Path) -> _Place:
        with self._lock:
            place = self._places.setdefault(path, _Place())
            self._places.move_to_end(path)
            over = [self._places.popitem(last=False)[1] for _ in range(len(self._places) - MAX_TEMPLATES)]
        for former in over:
            former.end()
        return place


def _start(environment: Environment, folder: Path) -> tuple[_Template | None, bool]:
    """A template; None where there is none in time. True: there never will be, as it ends by itself."""
    ours, theirs = socket.socketpair()
    names = {canonicalize_name(syntax.requirement(text).name) for text in _requirements(folder)}
    modules = [module for name, of_it in _MODULES.items() if name in names for module in of_it]
    process = subprocess.Popen(
        [
            *(environment.python, _SOURCE, str(theirs.fileno()), naming.DEPLOYMENT_VARIABLE, str(IDLE_SECONDS)),
            *modules,
        ],
        cwd=environment.path,
        env=_variables(environment),
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    theirs.close()
    threading.Thread(target=process.wait, daemon=True).start()  # or it would be a zombie at its end
    answers = ours.makefile("rb")
    template = _Template(process, ours, answers, frozenset())
    try:
        ours.settimeout(START_SECONDS)
        template.read = frozenset(_answer(answers)["read"])
        ours.settimeout(_ANSWER_SECONDS)
    except (OSError, ValueError) as error:
        template.end(at_once=True)
        return None, isinstance(error, ValueError)
    return template, False


def _variables(environment: Environment) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "HOME": str(environment.path / "no-home"),
        "LANG": os.environ.get("LANG") or "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        naming.DEPLOYMENT_VARIABLE: "0" * 32,
        **{name: os.environ[name] for name in _CERTIFICATES if os.environ.get(name)},
    }


def _requirements(folder: Path) -> list[str]:
    dependencies: list[str] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["dependencies"]
    return dependencies


def _answer(answers: IO[bytes]) -> dict[str, Any]:
    """The next one. Raises ValueError where none comes any more."""
    answer: dict[str, Any] = json.loads(answers.readline())
    return answer


def _sets(script: bytes) -> set[str]:
    """What may be names of environment variables in a script that touches those at all."""
    text = script.decode(errors="replace")
    return set(_WORD.findall(text)) - _OF_EVERY_SCRIPT if _TOUCHES_VARIABLES.search(text) else set()
