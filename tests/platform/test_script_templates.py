"""Scripts in forked processes: how they differ from fresh interpreters, which is not at all, and where the latter run.

test_training.py runs all its scripts both ways.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from asgard.platform import script_templates
from asgard.platform.environments import Environment
from asgard.platform.script_templates import ScriptTemplates

from ..waiting import until
from .test_training import Deploy, deploy, project, templates

__all__ = ["deploy", "project", "templates"]

only_forked = pytest.mark.parametrize("deploy", ["forked"], indirect=True)

WHO = "import os; print('script_template' in open(f'/proc/{os.getpid()}/cmdline').read())"

SEEN = """
import gc, locale, multiprocessing, os, resource, signal, sys, threading, time, warnings
def show(**facts):
    for name, value in facts.items():
        print(name, value)
first = sys.modules["__main__"]
show(
    argv=sys.argv, orig_argv=sys.orig_argv, path=sys.path, executable=sys.executable, flags=sys.flags,
    prefix=(sys.prefix, sys.base_prefix), options=(sys._xoptions, sys.warnoptions), file=__file__, name=__name__,
    loader=(type(__loader__).__name__, __loader__.name, __loader__.path), spec=(__spec__, __package__, __cached__),
    names=sorted(name for name in first.__dict__ if name.startswith("__")), same=first.__dict__ is globals(),
    code=show.__code__.co_filename, annotations=__annotations__, doc=__doc__,
    cwd=os.getcwd(), umask=os.umask(0o22), environment=sorted(name for name in os.environ if name != "LC_CTYPE"),
    descriptors=sorted(map(int, os.listdir("/proc/self/fd")))[:3], count=len(os.listdir("/proc/self/fd")),
    input=os.readlink("/proc/self/fd/0"), same_output=os.readlink("/proc/self/fd/1") == os.readlink("/proc/self/fd/2"),
    leads=(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()),
    streams=[(s.encoding, s.errors, s.line_buffering, s.write_through, type(s.buffer).__name__)
             for s in (sys.stdout, sys.stderr)],
    stdin=(sys.stdin.encoding, sys.stdin.read(), sys.stdin.fileno()),
    signals=[(number.name, str(signal.getsignal(number))) for number in sorted(signal.valid_signals())
             if isinstance(number, signal.Signals) and "default_int" not in str(signal.getsignal(number))],
    interrupt=signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    mask=signal.pthread_sigmask(signal.SIG_BLOCK, []), wakeup=signal.set_wakeup_fd(-1),
    limits=[resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")],
    nice=os.nice(0), affinity=os.sched_getaffinity(0),
    threads=(threading.active_count(), threading.current_thread() is threading.main_thread()),
    children=multiprocessing.active_children(), process=multiprocessing.current_process().name,
    start=multiprocessing.get_start_method(), directory=multiprocessing.process.ORIGINAL_DIR,
    encoding=(locale.getpreferredencoding(), sys.getfilesystemencoding()), zone=time.tzname,
    collects=(gc.isenabled(), gc.get_threshold()), limit=sys.getrecursionlimit(), writes=not sys.dont_write_bytecode,
    hooks=(sys.excepthook is sys.__excepthook__, sys.stdout is sys.__stdout__, sys.gettrace(), sys.getprofile()),
)
import numpy, threadpoolctl, sklearn.ensemble, mlflow
show(
    pools=sorted((pool["user_api"], pool["num_threads"]) for pool in threadpoolctl.threadpool_info()),
    cores=__import__("joblib").cpu_count(), uri=mlflow.get_tracking_uri(), run=mlflow.active_run(),
)
"""


def test_a_script_sees_the_same_in_both(deploy: Deploy, templates: ScriptTemplates) -> None:
    forked = replace(deploy, templates=templates).run(SEEN)
    assert forked == replace(deploy, templates=None).run(SEEN)
    assert len(forked) > 30


@only_forked
def test_a_script_is_forked_where_nothing_speaks_against_it(deploy: Deploy) -> None:
    assert deploy.run(WHO, {"LIMIT": "3"}) == ["True"]


@only_forked
@pytest.mark.parametrize(
    "name", ["PYTHONHASHSEED", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "LD_PRELOAD", "MALLOC_ARENA_MAX", "TZ", "LC_ALL"]
)
def test_a_variable_that_only_a_fresh_interpreter_reads_gets_one(deploy: Deploy, name: str) -> None:
    assert deploy.run(WHO, {name: ""}) == ["False"]


@only_forked
def test_so_does_one_that_an_import_has_read(deploy: Deploy) -> None:
    assert deploy.run(WHO, {"SKLEARN_ASSUME_FINITE": "1"}) == ["False"]


@only_forked
def test_so_does_a_script_that_sets_such_a_variable_itself(deploy: Deploy) -> None:
    setting = "import os\nos.environ['OMP_NUM_THREADS'] = '1'\n"
    assert deploy.run(setting + WHO) == ["False"]
    assert deploy.run(setting.replace("OMP_NUM_THREADS", "SCIPY_ARRAY_API") + WHO) == ["False"]
    assert deploy.run("# OMP_NUM_THREADS\n" + WHO) == ["True"]


@only_forked
def test_random_numbers_and_keys_differ_from_script_to_script(deploy: Deploy) -> None:
    source = """
        import multiprocessing, random, tempfile, uuid
        import numpy
        from mlflow.utils.name_utils import _generate_random_name
        print(random.random(), numpy.random.rand(), uuid.uuid4(), _generate_random_name())
        print(multiprocessing.current_process().authkey.hex(), tempfile.gettempdir())
    """
    first, second = deploy.run(source), replace(deploy, token="0" * 32).run(source)
    assert all(one != other for one, other in zip(" ".join(first).split(), " ".join(second).split(), strict=True))


@only_forked
def test_a_script_finds_nothing_of_an_earlier_one_in_its_memory(deploy: Deploy) -> None:
    deploy.run("import os; print(os.environ['SECRET'])", {"SECRET": "k3y-of-the-first"})
    source = """
        import re
        found = searched = 0
        secret = re.compile(b"k3y-of-the-firs[t]")
        with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
            for line in maps:
                bounds, rights, *_ = line.split()
                if rights.startswith("rw") and "[v" not in line:
                    begin, end = (int(bound, 16) for bound in bounds.split("-"))
                    memory.seek(begin)
                    searched += end - begin
                    found += len(secret.findall(memory.read(end - begin)))
        print(found, searched > 2**24)
    """
    assert deploy.run(source) == ["0 True"]


@only_forked
def test_a_file_that_is_left_open_is_written(deploy: Deploy) -> None:
    deploy.run("file = open('rows.csv', 'w')\nfile.write('1,2')")
    assert (deploy.folder / "rows.csv").read_text() == "1,2"


@pytest.fixture
def own(project: tuple[Path, Environment]) -> Iterator[ScriptTemplates]:
    made = ScriptTemplates()
    yield made
    made.close()


def processes_of(environment: Environment) -> list[psutil.Process]:
    """The templates of an environment that run; their runners are not templates."""
    found = []
    for process in psutil.Process().children():
        if process.status() != psutil.STATUS_ZOMBIE and process.cmdline()[:1] == [str(environment.python)]:
            found.append(process)
    return found


def linked(environment: Environment, path: Path) -> Environment:
    """The same environment under another name."""
    path.symlink_to(environment.path)
    return Environment(path, path / "bin" / "python")


@only_forked
def test_templates_are_one_an_environment_bounded_in_number_and_end(
    deploy: Deploy, own: ScriptTemplates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script_templates, "MAX_TEMPLATES", 1)
    monkeypatch.setattr(script_templates, "_MODULES", {})
    one, other = linked(deploy.environment, tmp_path / "one"), linked(deploy.environment, tmp_path / "other")
    for environment in (one, one, other):
        assert replace(deploy, templates=own, environment=environment).run(WHO) == ["True"]
    until(lambda: (len(processes_of(one)), len(processes_of(other))) == (0, 1))
    own.close()
    until(lambda: not processes_of(other))


@only_forked
def test_a_template_without_work_ends_and_another_takes_its_place(
    deploy: Deploy, own: ScriptTemplates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script_templates, "IDLE_SECONDS", 0.5)
    monkeypatch.setattr(script_templates, "_MODULES", {})
    own_deploy = replace(deploy, templates=own, environment=linked(deploy.environment, tmp_path / "one"))
    assert own_deploy.run(WHO) == ["True"]
    until(lambda: not processes_of(own_deploy.environment))
    monkeypatch.setattr(script_templates, "IDLE_SECONDS", 900.0)
    assert own_deploy.run(WHO) == ["True"]
    (killed,) = processes_of(own_deploy.environment)
    killed.kill()
    assert own_deploy.run(WHO) == ["True"]


@only_forked
def test_what_cannot_be_forked_is_left_to_fresh_interpreters(
    deploy: Deploy, own: ScriptTemplates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=[9]).start()"
    )
    monkeypatch.setattr(script_templates, "_MODULES", {"mlflow": ("threaded",)})
    environment = linked(deploy.environment, tmp_path / "one")
    monkeypatch.setattr(
        script_templates, "_variables", lambda _: {"PYTHONPATH": str(tmp_path), "ASGARD_DEPLOYMENT": "0"}
    )
    assert replace(deploy, templates=own, environment=environment).run(WHO) == ["False"]
