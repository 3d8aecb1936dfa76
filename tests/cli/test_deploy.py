import signal
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from asgard.errors import (
    AsgardError,
    DeployInProgress,
    EngineMissing,
    InfrastructureFailed,
    ScriptFailed,
    ScriptTimeout,
    TooManyDeploys,
)
from asgard.platform.requests import DeploymentChanges, DeployRequest
from asgard.progress import OnProgress, Progress
from asgard.settings import Settings

from ..api.fake_platform import FakeDeployed, FakePlatform, Running, running
from ..waiting import until
from . import processes
from .conftest import Run


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_bytes("print('grüße')\n".encode())
    return path


def fails_with(platform: FakePlatform, error: Exception) -> None:
    def fail(_: DeployRequest, __: OnProgress) -> FakeDeployed:
        raise error

    platform.on_deploy = fail


def test_the_url_alone_is_on_the_standard_output_and_the_progress_on_the_standard_error(
    run: Run, platform: FakePlatform, script: Path
) -> None:
    def deploy(_: DeployRequest, on_progress: OnProgress) -> FakeDeployed:
        on_progress(Progress("training", "stage", "Running train.py"))
        on_progress(Progress("training", "log", "epoch 1 [bold]of[/] 2"))
        on_progress(Progress("infrastructure", "stage", "Bringing up the stack iris"))
        return FakeDeployed()

    platform.on_deploy = deploy
    result = run("deploy", str(script), "--name", "iris", "-r", "mlflow")
    assert result.exit_code == 0
    assert result.stdout == "http://127.0.0.1:20123\n"
    lines = result.stderr.splitlines()
    assert lines[0] == "training: Running train.py"
    assert lines[1] == "  epoch 1 [bold]of[/] 2"
    assert lines[2].startswith("  done in ")
    assert lines[3] == "infrastructure: Bringing up the stack iris"
    assert "iris version 1" in lines[-1]
    assert "http://127.0.0.1:20123/predict" in lines[-1]


def test_what_is_given_is_what_the_platform_is_asked(run: Run, platform: FakePlatform, script: Path) -> None:
    requirements = script.with_name("needs.txt")
    requirements.write_text(
        "# for training\nnumpy<2  # skops\n\n  pandas ; python_version<'3.13'\n", encoding="utf-8-sig"
    )
    run(
        "deploy", str(script), "--name", "iris", "-r", "mlflow", "-r", "scikit-learn==1.3.0",
        "--requirements-file", str(requirements), "--env", "A=1", "--env", "B=x=y", "--env", "EMPTY=",
        "--tag", "team=research", "--experiment", "first try", "--replicas", "3", "--memory", "512Mi", "--cpu", "500m",
    )  # fmt: skip
    assert platform.requests == [
        DeployRequest(
            script=script.read_bytes(),
            script_name="train.py",
            experiment_name="first try",
            model_name="iris",
            requirements=("mlflow", "scikit-learn==1.3.0", "numpy<2", "pandas ; python_version<'3.13'"),
            environment_vars={"A": "1", "B": "x=y", "EMPTY": ""},
            deployment_config=DeploymentChanges(3, "512Mi", "500m"),
            tags={"team": "research"},
        )
    ]


def test_what_is_not_given_is_not_in_the_request(run: Run, platform: FakePlatform, script: Path) -> None:
    run("deploy", str(script), "--name", "iris", "--cpu", "2")
    assert platform.requests == [
        DeployRequest(
            script=script.read_bytes(),
            script_name="train.py",
            experiment_name="iris",
            model_name="iris",
            requirements=(),
            environment_vars=None,
            deployment_config=DeploymentChanges(cpu_limit="2"),
            tags=None,
        )
    ]


def test_a_failing_script_is_told_with_its_stage_its_last_lines_and_its_run(
    run: Run, platform: FakePlatform, script: Path
) -> None:
    tail = ["  File train.py, line 3", "ValueError: [red]no[/] \x1b[2Jdata"]
    fails_with(platform, ScriptFailed("The script exited with code 1.", log_tail=tail, run_id="abc123"))
    result = run("deploy", str(script), "--name", "iris")
    assert result.exit_code == 1
    assert result.stdout == ""
    told = result.stderr
    assert "Error: The script failed at the stage training\n  The script exited with code 1.\n" in told
    assert "  |   File train.py, line 3\n  | ValueError: [red]no[/] data\n" in told
    assert "abc123" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(("undo", "words"), [("complete", "as it was before"), ("incomplete", "completes it")])
def test_failed_infrastructure_is_told_with_its_reason_and_whether_all_is_as_before(
    run: Run, platform: FakePlatform, script: Path, undo: str, words: str
) -> None:
    error = InfrastructureFailed("A worker passed its memory limit.", reason="OOMKilled")
    error.undo = undo
    fails_with(platform, error)
    result = run("deploy", str(script), "--name", "iris")
    assert result.exit_code == 1
    assert "at the stage infrastructure (OOMKilled)" in result.stderr
    assert words in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DeployInProgress("iris"), 5, "Try again in 15 s."),
        (TooManyDeploys("All places are taken."), 5, "Try again in 30 s."),
        (EngineMissing("There is no Pulumi CLI."), 1, "There is no Pulumi CLI."),
        (ScriptTimeout("The script ran for 1800 s."), 1, "ASGARD_TRAINING_TIMEOUT_SECONDS"),
        (RuntimeError("hunter2"), 1, "Something went wrong inside Asgard"),
    ],
)
def test_each_kind_of_failure_has_its_exit_code_and_says_what_to_do(
    run: Run, platform: FakePlatform, script: Path, error: AsgardError, code: int, words: str
) -> None:
    fails_with(platform, error)
    result = run("deploy", str(script), "--name", "iris")
    assert result.exit_code == code
    assert words in result.stderr
    assert "hunter2" not in result.output


def test_a_field_that_the_api_refuses_is_told_as_the_option_that_gave_it(run: Run, script: Path) -> None:
    result = run("deploy", str(script), "--name", "Not A Name", "--memory", "lots", "--env", "PATH=secret-value")
    assert result.exit_code == 2
    assert "--name (model_name): must be 1 to 53 characters" in result.stderr
    assert "--memory (deployment_config.memory_limit): " in result.stderr
    assert "--env (environment_vars.PATH): is reserved" in result.stderr
    assert "secret-value" not in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-r", "requirements.txt"], "--requirements-file requirements.txt"),
        (["--env", "secretvalue"], "NAME=VALUE"),
        (["--env", "A=1", "--env", "A=2"], "A is given twice"),
        (["--tag", "=x"], "NAME=VALUE"),
        (["--replicas", "many"], "--replicas"),
        (["--requirements-file", "no-such-file"], "does not exist"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_sent(
    run: Run, platform: FakePlatform, script: Path, options: list[str], words: str
) -> None:
    result = run("deploy", str(script), "--name", "iris", *options, COLUMNS="300")
    assert result.exit_code == 2
    assert words in result.stderr
    assert "secretvalue" not in result.stderr
    assert platform.requests == []


@pytest.mark.parametrize("line", ["-r more.txt", "--index-url https://x", "numpy==1 \\"])
def test_an_option_in_a_requirements_file_is_refused_with_its_line(
    run: Run, platform: FakePlatform, script: Path, line: str
) -> None:
    requirements = script.with_name("needs.txt")
    requirements.write_text(f"mlflow\n{line}\n")
    result = run("deploy", str(script), "--name", "iris", "--requirements-file", str(requirements), COLUMNS="300")
    assert result.exit_code == 2
    assert "needs.txt, line 2: " in result.stderr
    assert platform.requests == []


def test_an_api_that_is_not_there_is_exit_code_3_and_how_to_start_it(run: Run, script: Path) -> None:
    with socket.socket() as probe:  # bound and not listening: refused, and nobody else gets the port
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        result = run("deploy", str(script), "--name", "iris", ASGARD_URL=url)
    assert result.exit_code == 3
    assert url in result.stderr
    assert "asgard serve" in result.stderr


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"Content-Length: 9\r\n\r\n"])
def test_an_api_that_ends_in_the_middle_leaves_a_deploy_out_of_sight(run: Run, script: Path, framing: bytes) -> None:
    with processes.answering(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + framing) as url:
        result = run("deploy", str(script), "--name", "iris", ASGARD_URL=url)
    assert result.exit_code == 3
    assert "out of sight" in result.stderr
    assert "asgard model iris" in result.stderr


def test_the_token_is_sent_and_a_wrong_one_is_told(
    tmp_path: Path, platform: FakePlatform, run: Run, script: Path
) -> None:
    settings = Settings.model_validate({"data_dir": tmp_path, "api_token": "right"})
    with running(settings, platform) as guarded:
        right = run("deploy", str(script), "--name", "iris", ASGARD_URL=guarded.url, ASGARD_API_TOKEN="right")
        wrong = run("deploy", str(script), "--name", "iris", ASGARD_URL=guarded.url, ASGARD_API_TOKEN="wrong")
    assert right.exit_code == 0
    assert wrong.exit_code == 1
    assert "Set ASGARD_API_TOKEN" in wrong.stderr


def test_ctrl_c_leaves_the_deploy_to_the_server_and_says_so(
    tmp_path: Path, server: Running, platform: FakePlatform, script: Path
) -> None:
    may_end = threading.Event()

    def deploy(_: DeployRequest, on_progress: OnProgress) -> FakeDeployed:
        on_progress(Progress("training", "stage", "Running train.py"))
        may_end.wait(60)
        return replace(FakeDeployed(), model_version=2)

    platform.on_deploy = deploy
    command = ["-m", "asgard.cli", "deploy", str(script), "--name", "iris"]
    try:
        with processes.started(command, tmp_path, ASGARD_URL=server.url) as process:
            until(lambda: "Running train.py" in processes.errors(tmp_path))
            process.send_signal(signal.SIGINT)
            assert processes.ended(process) == 130
            assert process.stdout is not None
            assert process.stdout.read() == ""
        assert "The deploy goes on at the server" in processes.errors(tmp_path)
        assert "deployed" not in platform.calls
    finally:
        may_end.set()
    until(lambda: "deployed" in platform.calls)
