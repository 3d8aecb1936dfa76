"""Posted scripts, run for real in the environment of the specification's example."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from asgard import naming
from asgard.errors import ScriptFailed, ScriptOutOfMemory, ScriptTimeout
from asgard.platform import environments, training
from asgard.platform.environments import Environment
from asgard.platform.script_templates import ScriptTemplates
from asgard.settings import Settings

from ..waiting import until

EXAMPLE = """
import mlflow
import mlflow.sklearn
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
X, y = make_classification(n_samples=100, n_features=5, random_state=42)
with mlflow.start_run():
    model = RandomForestClassifier(n_estimators=10, random_state=42)
    model.fit(X, y)
    mlflow.log_param("n_estimators", 10)
    mlflow.log_metric("accuracy", model.score(X, y))
    mlflow.sklearn.log_model(model, "model")
"""


def ignore(_: str) -> None:
    return


@pytest.fixture(scope="module")
def project(test_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Environment]:
    """A folder with the example's lock, and its environment."""
    folder = tmp_path_factory.mktemp("project")
    settings = Settings(data_dir=folder, cache_dir=test_cache / "asgard")
    lock = environments.resolve(["mlflow", "scikit-learn==1.3.0"], folder / "project", settings, ignore)
    return lock.folder, environments.ensure(lock, settings, ignore)


@dataclass
class Deploy:
    """Runs scripts as a deploy does."""

    folder: Path
    environment: Environment
    settings: Settings
    templates: ScriptTemplates | None
    token: str = field(default_factory=lambda: uuid4().hex)
    lines: list[str] = field(default_factory=list)

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.folder.parent / 'mlflow.db'}"

    def run(self, source: str, variables: Mapping[str, str] | None = None, **limits: Any) -> list[str]:
        self.lines.clear()
        training.run_script(
            textwrap.dedent(source).encode(),
            "train.py",
            self.environment,
            self.folder,
            tracking_uri=self.tracking_uri,
            experiment_name="churn",
            token=self.token,
            environment_vars=variables or {},
            settings=self.settings.model_copy(update=limits),
            templates=self.templates,
            on_log=self.lines.append,
        )
        return list(self.lines)

    def fails(self, source: str, error: type[ScriptFailed] = ScriptFailed, **limits: Any) -> ScriptFailed:
        with pytest.raises(error) as raised:
            self.run(source, **limits)
        assert type(raised.value) is error
        return raised.value

    def left(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            marked = process.environ().get(naming.DEPLOYMENT_VARIABLE) == self.token
            return marked or self.token in " ".join(process.cmdline())
        except psutil.Error:
            return False


@pytest.fixture(scope="module")
def templates() -> Iterator[ScriptTemplates]:
    made = ScriptTemplates()
    yield made
    made.close()


@pytest.fixture(params=["fresh", "forked"])
def deploy(
    request: pytest.FixtureRequest, project: tuple[Path, Environment], templates: ScriptTemplates, tmp_path: Path
) -> Iterator[Deploy]:
    """In a fresh interpreter, and in a forked one: no script can tell which."""
    locked, environment = project
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("pyproject.toml", "uv.lock"):
        (folder / name).write_bytes((locked / name).read_bytes())
    settings = Settings(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    made = Deploy(folder, environment, settings, templates if request.param == "forked" else None)
    yield made
    training.end_leftovers(made.token)


# What a script sees


def test_a_traceback_shows_what_is_the_scripts_alone(deploy: Deploy) -> None:
    script = deploy.folder / "train.py"
    assert deploy.fails("def f():\n    int('x')\n\nf()\n").log_tail == [
        "Traceback (most recent call last):",
        f'  File "{script}", line 4, in <module>',
        "    f()",
        f'  File "{script}", line 2, in f',
        "    int('x')",
        "ValueError: invalid literal for int() with base 10: 'x'",
    ]
    assert [line for line in deploy.fails("x = = 1").log_tail if "File" in line] == [f'  File "{script}", line 1']


def test_a_script_is_main_with_its_own_name_and_folder(deploy: Deploy) -> None:
    source = """
        import os, sys
        print(__name__, sys.argv, os.path.basename(__file__))
        print(os.getcwd())
        print(sorted(os.listdir()))
    """
    who, where, files = deploy.run(source)
    assert who == "__main__ ['train.py'] train.py"
    assert where == str(deploy.folder)
    assert files == "['pyproject.toml', 'train.py', 'uv.lock']"


def test_a_script_runs_on_the_python_of_its_environment(deploy: Deploy) -> None:
    assert deploy.run("import sys; print(sys.prefix)") == [str(deploy.environment.path)]


def test_a_script_sees_only_the_variables_it_needs(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "PULUMI_CONFIG_PASSPHRASE", "ASGARD_API_TOKEN", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.setenv(name, "hidden")
    for name in ("MLFLOW_TRACKING_PASSWORD", "UV_DEFAULT_INDEX", "VIRTUAL_ENV", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "hidden")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    printed = deploy.run("import os\nfor item in os.environ.items(): print(*item, sep='=')", {"LIMIT": "3"})
    seen = dict(line.split("=", 1) for line in printed)
    network = {name for name in training._NETWORK if os.environ.get(name)} | {"NO_PROXY", "no_proxy"}
    assert set(seen) - network - {"LC_CTYPE"} == {
        "PATH", "HOME", "TMPDIR", "LANG", "PYTHONUNBUFFERED", "LIMIT", "ASGARD_DEPLOYMENT", "MLFLOW_DISABLE_TELEMETRY",
        "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_CONTEXT", "MLFLOW_TRACKING_URI",
    }  # fmt: skip
    assert "hidden" not in "".join(printed)
    assert seen["LIMIT"] == "3"
    assert seen["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert seen["NO_PROXY"] == seen["no_proxy"] == "example.org,127.0.0.1,localhost"
    assert seen["MLFLOW_TRACKING_URI"] == deploy.tracking_uri
    assert seen["MLFLOW_EXPERIMENT_NAME"] == "churn"
    assert seen["MLFLOW_RUN_CONTEXT"] == f'{{"asgard.deployment": "{deploy.token}"}}'


def test_credentials_of_an_external_mlflow_reach_the_script(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "someone")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "known")
    code = "import os; print(os.environ['MLFLOW_TRACKING_USERNAME'], os.environ['MLFLOW_TRACKING_PASSWORD'])"
    assert deploy.run(code, mlflow_tracking_uri="http://127.0.0.1:1") == ["someone known"]


def test_what_was_posted_goes_before_what_is_only_a_default(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://of-the-api:3128")
    posted = {"LANG": "C", "HTTPS_PROXY": "http://of-the-script:3128", "NO_PROXY": "internal", "no_proxy": "internal"}
    names = ["LANG", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"]
    there = "internal,127.0.0.1,localhost"
    assert deploy.run(f"import os\nfor name in {names}: print(os.environ.get(name))", posted) == (
        ["C", "http://of-the-script:3128", "None", there, there]
    )


def test_what_was_posted_cannot_redirect_the_tracking(deploy: Deploy) -> None:
    code = "import os; print(os.environ['MLFLOW_TRACKING_URI'])"
    assert deploy.run(code, {"MLFLOW_TRACKING_URI": "elsewhere"}) == [deploy.tracking_uri]


def test_home_and_temporary_folder_are_the_scripts_own_and_the_latter_is_short_and_removed(deploy: Deploy) -> None:
    source = """
        import pathlib, tempfile
        print(pathlib.Path.home())
        print(tempfile.mkdtemp())
    """
    home, temporary = deploy.run(source)
    assert home == str(deploy.folder.parent / "home")
    assert len(temporary) < 80
    assert not Path(temporary).parent.exists()


def test_programs_of_the_environment_and_uv_are_on_path_and_the_apis_are_not(deploy: Deploy) -> None:
    source = """
        import shutil
        for name in ("python", "mlflow", "uv", "sh", "asgard", "pytest"): print(name, shutil.which(name))
    """
    found = dict(line.split(" ", 1) for line in deploy.run(source))
    assert found["python"] == str(deploy.environment.python)
    assert found["mlflow"] == str(deploy.environment.path / "bin" / "mlflow")
    assert found["uv"] == str(deploy.folder.parent / "programs" / "uv")
    assert found["sh"] != "None"
    assert found["asgard"] == found["pytest"] == "None"


def test_a_script_has_no_input(deploy: Deploy) -> None:
    assert "EOFError" in deploy.fails("input()").message


def test_byte_code_is_written(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert deploy.run("import sys; print(sys.dont_write_bytecode)") == ["False"]


# Shapes of scripts


def test_the_example_trains_and_its_run_carries_the_token(deploy: Deploy) -> None:
    printed = deploy.run(EXAMPLE)
    # From the lock, not by running the model in a subprocess.
    assert any("Skipping package capture based inference" in line for line in printed)
    query = f"""
        from mlflow import MlflowClient
        client = MlflowClient("{deploy.tracking_uri}")
        experiment = client.get_experiment_by_name("churn").experiment_id
        run, = client.search_runs([experiment], "tags.`asgard.deployment` = '{deploy.token}'")
        model, = client.search_logged_models([experiment], "tags.`asgard.deployment` = '{deploy.token}'")
        print(run.info.status, run.data.metrics["accuracy"] > 0.9, model.name)
    """
    asked = [str(deploy.environment.python), "-c", textwrap.dedent(query)]
    answer = subprocess.run(asked, capture_output=True, text=True, check=True, env={"PATH": os.defpath})
    assert answer.stdout.split() == ["FINISHED", "True", "model"]


def test_a_guarded_main_runs(deploy: Deploy) -> None:
    source = """
        def main():
            print("trained")

        if __name__ == "__main__":
            main()
    """
    assert deploy.run(source) == ["trained"]


def test_files_beside_the_script_are_its_own_and_what_was_locked_is_put_back(deploy: Deploy) -> None:
    before = (deploy.folder / "uv.lock").read_bytes()
    source = """
        from pathlib import Path
        Path("data").mkdir()
        Path("data/rows.csv").write_text("1,2")
        print(Path("data/rows.csv").read_text())
        Path("uv.lock").write_text("nonsense")
        Path("pyproject.toml").unlink()
        Path("train.py").write_text("nonsense")
    """
    assert deploy.run(source) == ["1,2"]
    assert (deploy.folder / "uv.lock").read_bytes() == before
    assert (deploy.folder / "pyproject.toml").exists()
    assert "data/rows.csv" in (deploy.folder / "train.py").read_text()


@pytest.mark.parametrize(
    "leave",
    [
        "os.remove('uv.lock'); os.mkfifo('uv.lock')",
        "os.remove('train.py'); os.mkdir('train.py'); open('train.py/data', 'w').close()",
        "os.remove('uv.lock'); os.symlink('/nowhere/at/all', 'uv.lock')",
        "here = os.getcwd(); shutil.rmtree(here); open(here, 'w').close()",
        "here = os.getcwd(); shutil.rmtree(here); os.symlink('/nowhere/at/all', here)",
    ],
)
def test_what_a_script_leaves_in_the_place_of_what_was_locked_neither_stops_nor_misleads_what_follows(
    deploy: Deploy, leave: str
) -> None:
    before = {name: (deploy.folder / name).read_bytes() for name in ("pyproject.toml", "uv.lock")}
    source = f"import os, shutil\n{leave}\nprint('left')"
    ended = threading.Thread(target=deploy.run, args=[source], daemon=True)
    ended.start()
    ended.join(60)
    assert not ended.is_alive()
    assert deploy.lines == ["left"]
    assert {name: (deploy.folder / name).read_bytes() for name in before} == before
    assert (deploy.folder / "train.py").read_text() == source


@pytest.mark.parametrize("change", ["os.remove", "os.mkfifo", "open"])
def test_a_script_s_own_output_log_is_none_of_ours(deploy: Deploy, change: str) -> None:
    source = f"""
        import os
        from contextlib import suppress
        with suppress(FileNotFoundError):
            {change}({"'output.log', 'w'" if change == "open" else "'output.log'"})
        print("trained")
    """
    assert deploy.run(source) == ["trained"]
    assert training.log_file(deploy.folder).read_bytes() == b"trained\n"
    assert training.log_tail(deploy.folder) == ["trained"]


def test_subprocesses_print_into_the_same_output(deploy: Deploy) -> None:
    source = """
        import subprocess, sys
        subprocess.run([sys.executable, "-c", "print('from python')"], check=True)
        subprocess.run("echo from a shell", shell=True, check=True)
    """
    assert deploy.run(source) == ["from python", "from a shell"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_works(deploy: Deploy, method: str) -> None:
    source = f"""
        import multiprocessing

        def square(x):
            return x * x

        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            with context.Pool(2) as pool, context.Manager() as manager:
                print(sum(pool.map(square, manager.list(range(10)))))
    """
    assert deploy.run(source) == ["285"]


def test_joblib_works_with_processes_of_its_own(deploy: Deploy) -> None:
    source = """
        from joblib import Parallel, delayed

        def square(x):
            return x * x

        print(sum(Parallel(n_jobs=2)(delayed(square)(x) for x in range(10))))
    """
    assert deploy.run(source) == ["285"]


# Output


def test_lines_come_while_the_script_runs(deploy: Deploy) -> None:
    gate = deploy.folder.parent / "gate"
    seen = threading.Event()

    def open_gate() -> None:
        until(lambda: "first" in deploy.lines)
        seen.set()
        gate.touch()

    threading.Thread(target=open_gate, daemon=True).start()
    source = f"""
        import os, time
        print("first")
        while not os.path.exists({str(gate)!r}):
            time.sleep(0.01)
        print("second")
    """
    assert deploy.run(source, training_timeout_seconds=60) == ["first", "second"]
    assert seen.is_set()


def test_all_output_is_kept_in_a_file(deploy: Deploy) -> None:
    deploy.run("import sys; print('out'); print('err', file=sys.stderr); sys.stdout.buffer.write(b'\\xff end')")
    assert training.log_file(deploy.folder).read_bytes() == b"out\nerr\n\xff end"
    assert training.log_tail(deploy.folder) == ["out", "err", "\ufffd end"]


# Ends


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n\nraise ValueError('no rows')\n", "train.py failed at line 3: ValueError: no rows"),
        ("import sys\nsys.exit('no rows')", "train.py exited with code 1: no rows"),
        ("import sys\nsys.exit(3)", "train.py exited with code 3."),
        ("import os\nos._exit(9)", "train.py exited with code 9."),
        ("x = 1\nif x\n    pass\n", "train.py failed at line 2: SyntaxError: expected ':'"),
        ("import os\nos.kill(os.getpid(), 11)", "train.py was killed by signal 11 (SIGSEGV)."),
        ("import os\nos.kill(os.getpid(), 9)", "train.py was killed by signal 9 (SIGKILL). The machine may have"),
    ],
)
def test_a_bad_end_says_why_and_where(deploy: Deploy, source: str, message: str) -> None:
    assert deploy.fails(source).message.startswith(message)


def test_a_failure_carries_the_last_lines(deploy: Deploy) -> None:
    error = deploy.fails("for i in range(100): print(i)\nraise ValueError('no rows')")
    assert error.log_tail[-1] == "ValueError: no rows"
    assert "99" in error.log_tail
    assert len(error.log_tail) == 50
    assert error.stage == "training"


def test_exit_handlers_and_code_zero_are_a_good_end(deploy: Deploy) -> None:
    assert deploy.run("import atexit, sys\natexit.register(print, 'bye')\nsys.exit(0)") == ["bye"]


# Limits, and what stays


def test_a_script_that_hangs_is_ended(deploy: Deploy) -> None:
    started = time.monotonic()
    error = deploy.fails(
        "import time\nprint('training')\ntime.sleep(1000)", ScriptTimeout, training_timeout_seconds=1.0
    )
    assert time.monotonic() - started < 30
    assert "longer than 1 s" in error.message
    assert error.log_tail == ["training"]
    assert deploy.left() == []


def test_a_script_that_ignores_signals_is_ended_all_the_same(deploy: Deploy) -> None:
    source = """
        import signal, time
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(1000)
    """
    deploy.fails(source, ScriptTimeout, training_timeout_seconds=1.0)
    assert deploy.left() == []


def test_a_script_that_eats_memory_is_ended(deploy: Deploy) -> None:
    error = deploy.fails(
        "import time\nheld = bytearray(400 * 2**20)\ntime.sleep(1000)", ScriptOutOfMemory, training_memory_limit="200Mi"
    )
    assert "more than 200Mi" in error.message
    assert deploy.left() == []


def test_memory_of_all_processes_counts_together(deploy: Deploy) -> None:
    source = """
        import subprocess, sys
        eat = "import time; held = bytearray(150 * 2**20); time.sleep(1000)"
        for child in [subprocess.Popen([sys.executable, "-c", eat]) for _ in range(3)]:
            child.wait()
    """
    deploy.fails(source, ScriptOutOfMemory, training_memory_limit="300Mi")
    assert deploy.left() == []


def test_memory_that_processes_share_counts_once(deploy: Deploy) -> None:
    source = """
        import os, time
        held = bytearray(os.urandom(1024)) * (200 * 1024)
        children = []
        for _ in range(4):
            if (pid := os.fork()) == 0:
                time.sleep(1.5)
                os._exit(0)
            children.append(pid)
        for pid in children:
            os.waitpid(pid, 0)
        print("ok")
    """
    assert deploy.run(source, training_memory_limit="500Mi") == ["ok"]


def test_a_script_that_prints_without_end_is_ended(deploy: Deploy) -> None:
    error = deploy.fails("while True: print('x' * 1000)", training_output_limit_bytes=1_000_000)
    assert "more than 1000000 bytes" in error.message
    assert training.log_file(deploy.folder).stat().st_size == 1_000_000
    assert deploy.left() == []


def test_a_script_with_too_many_processes_is_ended(deploy: Deploy) -> None:
    source = """
        import subprocess, time
        children = [subprocess.Popen(["sleep", "1000"]) for _ in range(30)]
        time.sleep(1000)
    """
    error = deploy.fails(source, training_process_limit=20)
    assert "more than 20 processes" in error.message
    assert deploy.left() == []


def test_a_script_may_have_as_many_processes_as_the_limit_says(deploy: Deploy) -> None:
    source = """
        import subprocess
        for child in [subprocess.Popen(["sleep", "0.5"]) for _ in range(15)]: child.wait()
        print("ok")
    """
    assert deploy.run(source, training_process_limit=20) == ["ok"]


BACKGROUND = {
    "a plain child": "subprocess.Popen(sleep)",
    "a session of its own": "subprocess.Popen(sleep, start_new_session=True)",
    "no environment": "subprocess.Popen(sleep, env={}, start_new_session=True)",
    "a daemon without an environment": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, sleep, {})
    os._exit(0)
os.wait()
""",
}


@pytest.mark.parametrize("start", BACKGROUND.values(), ids=BACKGROUND.keys())
@pytest.mark.parametrize("end", ["", "sys.exit(3)", "time.sleep(1000)"], ids=["ends well", "fails", "hangs"])
def test_nothing_the_script_started_survives_it(deploy: Deploy, start: str, end: str) -> None:
    sleeper = f"import time; time.sleep(1000)  # {deploy.token}"
    source = f"import os, subprocess, sys, time\nsleep = [sys.executable, '-c', {sleeper!r}]\n{start}\n{end}\n"
    try:
        deploy.run(source, training_timeout_seconds=2.0)
    except ScriptFailed:
        assert end
    assert deploy.left() == []


@pytest.mark.parametrize("end", ["", "1 / 0", "os.kill(os.getpid(), 9)", "time.sleep(1000)"])
def test_nothing_the_script_left_in_shared_memory_stays_there(deploy: Deploy, end: str) -> None:
    name = f"asgard-{deploy.token}"
    source = f"""
        import os, time
        from multiprocessing.shared_memory import SharedMemory
        left = SharedMemory({name!r}, create=True, size=1024)
        {end}
    """
    try:
        deploy.run(source, training_timeout_seconds=2.0)
    except ScriptFailed:
        assert end
    assert not Path("/dev/shm", name).exists()
    assert deploy.left() == []


def test_what_joblib_shares_between_its_processes_goes_with_a_script_that_is_ended(deploy: Deploy) -> None:
    source = """
        import os, time
        import numpy as np
        from joblib import Parallel, delayed

        def work(shared):
            print(shared.filename, flush=True)
            time.sleep(1000)

        Parallel(n_jobs=2)(delayed(work)(np.ones(300_000)) for _ in range(2))
    """
    deploy.fails(source, ScriptTimeout, training_timeout_seconds=5.0)
    shared = [Path(line) for line in deploy.lines if "joblib_memmapping_folder" in line]
    assert shared
    assert not any(path.exists() for path in shared)
    assert deploy.left() == []


def test_what_names_itself_a_tracker_of_resources_is_ended_all_the_same(deploy: Deploy) -> None:
    source = f"""
        import subprocess, sys
        sleep = "import time; time.sleep(1000)  # resource_tracker import main {deploy.token}"
        subprocess.Popen([sys.executable, "-c", sleep])
    """
    deploy.run(source)
    assert deploy.left() == []


def test_a_script_that_kills_what_is_above_it_leaves_nothing(deploy: Deploy) -> None:
    source = """
        import os, subprocess, time
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        os.kill(os.getppid(), 9)
        time.sleep(1000)
    """
    assert "could not be run to its end" in deploy.fails(source).message
    assert deploy.left() == []


def test_a_script_that_stops_what_is_above_it_is_ended_in_time(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_END_SECONDS", 0.5)
    source = "import os, time\nos.kill(os.getppid(), 19)\ntime.sleep(1000)"
    deploy.fails(source, ScriptTimeout, training_timeout_seconds=1.0)
    assert deploy.left() == []


RUN_AND_DIE = """
import sys
from pathlib import Path
from asgard.platform import training
from asgard.platform.environments import Environment
from asgard.platform.script_templates import ScriptTemplates
from asgard.settings import Settings
environment, folder, token, kind = sys.argv[1:]
training.run_script(
    b"import subprocess, time; subprocess.Popen(['sleep', '1000'], start_new_session=True); time.sleep(1000)",
    "train.py", Environment(Path(environment), Path(environment) / "bin" / "python"), Path(folder),
    tracking_uri="sqlite:///unused.db", experiment_name="x", token=token, environment_vars={},
    settings=Settings(data_dir=Path(folder), cache_dir=Path(folder)),
    templates=ScriptTemplates() if kind == "forked" else None, on_log=print,
)
"""


@pytest.fixture
def platform_process(deploy: Deploy) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs a script, as the API does."""
    kind = "fresh" if deploy.templates is None else "forked"
    arguments = [str(deploy.environment.path), str(deploy.folder), deploy.token, kind]
    process = subprocess.Popen([sys.executable, "-c", RUN_AND_DIE, *arguments])
    yield process
    process.kill()
    process.wait()


def test_a_script_ends_when_the_platform_is_killed(deploy: Deploy, platform_process: subprocess.Popen[bytes]) -> None:
    scripts = until(lambda: [p for p in deploy.left() if p.name() == "sleep"])
    templates = [p for p in psutil.Process(platform_process.pid).children() if "script_template" in str(p.cmdline())]
    assert len(templates) == (deploy.templates is not None)
    platform_process.kill()
    psutil.wait_procs(scripts, timeout=30)
    until(lambda: [p for p in deploy.left() if p.pid != platform_process.pid] == [], seconds=30)
    psutil.wait_procs(templates, timeout=30)
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in templates)


def test_leftovers_of_a_dead_deploy_are_found_by_its_token(
    deploy: Deploy, platform_process: subprocess.Popen[bytes]
) -> None:
    until(lambda: [p for p in deploy.left() if p.name() == "sleep"])
    script = next(p for p in deploy.left() if p.name() == "sleep").parent()
    runner = script and script.parent()
    assert runner
    # As if it hung: it does not see that the platform is gone.
    runner.send_signal(signal.SIGSTOP)
    platform_process.kill()
    platform_process.wait()
    assert deploy.left()
    training.end_leftovers(deploy.token)
    assert deploy.left() == []
    assert not training._temporary(deploy.token).exists()


def test_ending_leftovers_where_there_are_none_does_nothing() -> None:
    training.end_leftovers(uuid4().hex)
