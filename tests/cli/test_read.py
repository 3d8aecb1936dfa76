import io
import json
from dataclasses import replace

import httpx
import pytest

from asgard.cli.output import print_table
from asgard.errors import TrackingUnavailable

from ..api.fake_platform import FakePlatform, Running, registered
from .conftest import Run
from .processes import answering


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (["models"], "/mlops/models"),
        (["model", "iris"], "/mlops/models/iris"),
        (["model", "team/models/élan 50%"], "/mlops/models/team%2Fmodels%2F%C3%A9lan%2050%25"),
        (["model", "?#&"], "/mlops/models/%3F%23%26"),
        (["status"], "/mlops/status"),
    ],
)
def test_json_is_the_apis_answer(run: Run, server: Running, command: list[str], path: str) -> None:
    result = run(*command, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == httpx.get(server.url + path).json()
    assert result.stdout.isascii()
    assert result.stderr == ""


CREATED, UPDATED = "2026-01-15T12:00:00Z", "2026-01-15T12:30:00.005000Z"


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()]


def test_models_are_a_table_that_a_pipe_gets_unbroken(
    run: Run, platform: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "m" * 300
    tags = {"asgard.inference_url": "http://127.0.0.1:20123", "asgard.deployment_id": "x", "team": "re\x1b[31msearch"}
    monkeypatch.setattr(
        platform, "models", lambda: [replace(registered(long), tags=tags), replace(registered("iris"), tags={})]
    )
    result = run("models")
    assert rows(result.stdout) == [
        ["NAME", "LATEST", "ANSWERS", "AT", "UPDATED", "TAGS"],
        [long, "1", "http://127.0.0.1:20123", UPDATED, "team=re\N{REPLACEMENT CHARACTER}[31msearch"],
        ["iris", "1", "-", UPDATED, "-"],
    ]


def test_a_narrow_terminal_gets_every_character_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "20")
    print_table(["RUN"], [["0123456789abcdef" * 2]])
    assert "0123456789abcdef" * 2 in "".join(terminal.getvalue().split())


def test_a_model_is_shown_with_its_versions(run: Run) -> None:
    shown = rows(run("model", "iris").stdout)
    assert shown[0] == ["NAME", "ANSWERS", "AT", "DEPLOYMENT", "CREATED", "TAGS"]
    assert shown[1] == ["iris", "-", "-", CREATED, "team=a"]
    assert shown[2:] == [
        ["VERSION", "STAGE", "STATUS", "CREATED", "RUN"],
        ["2", "Production", "READY", CREATED, "abc123def"],
        ["1", "None", "READY", CREATED, "abc123def"],
    ]


def test_status_says_how_each_part_is(run: Run) -> None:
    assert rows(run("status").stdout) == [
        ["PART", "STATUS", "WHERE"],
        ["mlflow", "healthy", "http://127.0.0.1:5000"],
        ["feast", "starting", "/data/feast"],
        ["deployment", "service", "unhealthy", "not", "ready", "to", "deploy"],
    ]


def test_an_unknown_model_is_exit_code_4(run: Run) -> None:
    result = run("model", "never-seen")
    assert result.exit_code == 4
    assert result.stdout == ""
    assert "'never-seen'" in result.stderr
    assert "asgard models" in result.stderr


def test_an_mlflow_that_is_not_there_is_exit_code_1_and_when_to_try_again(run: Run, platform: FakePlatform) -> None:
    def fail() -> None:
        raise TrackingUnavailable("MLflow is starting.")

    platform.on_models = fail
    result = run("models")
    assert result.exit_code == 1
    assert "MLflow is starting." in result.stderr
    assert "Try again in 5 s." in result.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://127.0.0.1:notaport"])
def test_an_address_that_is_none_is_exit_code_2(run: Run, url: str) -> None:
    result = run("models", ASGARD_URL=url)
    assert result.exit_code == 2
    assert "ASGARD_URL" in result.stderr


@pytest.mark.parametrize("head", [b"HTTP/1.1 404 Not Found", b"HTTP/1.1 200 OK"])
def test_a_server_that_is_not_asgard_is_exit_code_3(run: Run, head: bytes) -> None:
    body = b"\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
    with answering(head + body) as url:
        result = run("models", ASGARD_URL=url)
    assert result.exit_code == 3
    assert f"{url}/mlops/models is not Asgard" in result.stderr


def test_a_setting_that_is_not_valid_is_named(run: Run) -> None:
    result = run("models", ASGARD_MAX_REQUEST_BYTES="many", ASGARD_TARGET="moon", ASGARD_TRAINING_MEMORY_LIMIT="8GB")
    assert result.exit_code == 2
    assert "ASGARD_MAX_REQUEST_BYTES: " in result.stderr
    assert "'many'" in result.stderr
    assert "ASGARD_TARGET: " in result.stderr
    assert "ASGARD_FEAST_REPO_PATH" not in result.stderr  # its default was not made, which is not the user's to mend
    assert "ASGARD_TRAINING_MEMORY_LIMIT: " in result.stderr


def test_a_proxy_is_not_asked_for_this_machine(run: Run) -> None:
    result = run("models", HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9", NO_PROXY="", no_proxy="")
    assert result.exit_code == 0
