"""`asgard serve` as a process, over a platform that only waits where a test says so."""

import json
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from ..api.fake_platform import DEADLINE_SECONDS, post
from ..waiting import until
from . import processes
from .conftest import Run

SERVE = ["-m", "tests.cli.serve_fake"]


def test_it_prints_its_url_answers_and_ends_in_order_when_told(tmp_path: Path) -> None:
    with processes.started([*SERVE, "serve", "--port", "0", "--log-format", "json"], tmp_path) as process:
        url = processes.first_line(process, tmp_path)
        assert httpx.get(f"{url}/health", timeout=DEADLINE_SECONDS).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert processes.ended(process) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""
    assert (tmp_path / "stopped").exists()
    events = [json.loads(line) for line in processes.errors(tmp_path).splitlines()]
    (answers,) = [event for event in events if event["event"] == "the API answers"]
    assert answers["url"] == url
    assert answers["data_dir"] == str(tmp_path / "data")
    assert events[-1]["event"] == "the API has ended"


def test_a_running_deploy_is_finished_first(tmp_path: Path) -> None:
    with processes.started([*SERVE, "serve", "--port", "0"], tmp_path) as process:
        url = processes.first_line(process, tmp_path)
        answers: list[httpx.Response] = []
        client = threading.Thread(target=lambda: answers.append(post(url)))
        client.start()
        until((tmp_path / "deploying").exists)
        process.send_signal(signal.SIGINT)
        until(lambda: "what runs is finished first" in processes.errors(tmp_path))
        (tmp_path / "finish").touch()
        assert processes.ended(process) == 0
        client.join(DEADLINE_SECONDS)
    assert [answer.status_code for answer in answers] == [200]


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    with processes.started([*SERVE, "serve", "--port", "0"], tmp_path) as process:
        url = processes.first_line(process, tmp_path)
        client = threading.Thread(target=_post_in_vain, args=[url])
        client.start()
        until((tmp_path / "deploying").exists)
        process.send_signal(signal.SIGINT)
        until(lambda: "what runs is finished first" in processes.errors(tmp_path))
        process.send_signal(signal.SIGINT)
        assert processes.ended(process) == 130
        client.join(DEADLINE_SECONDS)


def test_a_deploy_that_takes_longer_than_the_bound_does_not_keep_it(tmp_path: Path) -> None:
    settings = {"ASGARD_SHUTDOWN_TIMEOUT_SECONDS": "1"}
    with processes.started([*SERVE, "serve", "--port", "0"], tmp_path, **settings) as process:
        url = processes.first_line(process, tmp_path)
        client = threading.Thread(target=_post_in_vain, args=[url])
        client.start()
        until((tmp_path / "deploying").exists)
        process.send_signal(signal.SIGTERM)
        assert processes.ended(process) == 0
        client.join(DEADLINE_SECONDS)


def _post_in_vain(url: str) -> None:
    with suppress(httpx.TransportError):
        post(url)


def test_a_data_folder_has_one_api_and_two_folders_have_two(tmp_path: Path, run: Run) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with processes.started([*SERVE, "serve", "--port", "0"], tmp_path) as first:
        processes.first_line(first, tmp_path)
        refused = run("serve", "--port", "0", ASGARD_DATA_DIR=str(tmp_path / "data"))
        assert refused.exit_code == 1
        assert f"Another `asgard serve` runs on the data folder {tmp_path / 'data'}" in refused.stderr
        with processes.started([*SERVE, "serve", "--port", "0"], other) as second:
            url = processes.first_line(second, other)
            assert httpx.get(f"{url}/health", timeout=DEADLINE_SECONDS).status_code == 200
    with processes.started([*SERVE, "serve", "--port", "0"], tmp_path) as again:  # the first was killed
        processes.first_line(again, tmp_path)


def test_a_port_that_is_taken_is_named(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--port", str(port))
    assert result.exit_code == 1
    assert f"Port {port} of 127.0.0.1 is taken" in result.stderr
    assert "--port" in result.stderr


def test_it_does_not_listen_beyond_this_machine_without_a_token(run: Run) -> None:
    result = run("serve", "--host", "0.0.0.0", "--port", "0")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: The API was not started")
    assert "ASGARD_API_TOKEN" in result.stderr


@pytest.mark.parametrize(
    ("host", "words"), [("no-such-host.invalid", "no-such-host.invalid"), ("192.0.2.1", "no address of this machine")]
)
def test_a_host_that_is_not_this_machine_is_told(run: Run, host: str, words: str) -> None:
    result = run("serve", "--host", host, "--port", "0", ASGARD_API_TOKEN="secret")
    assert result.exit_code in (1, 2)
    assert words in result.stderr


def test_a_data_folder_that_cannot_be_written_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("serve", "--port", "0", ASGARD_DATA_DIR=str(tmp_path / "file" / "data"))
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_localhost_is_served_at_the_default_address_too(tmp_path: Path) -> None:
    with processes.started([*SERVE, "serve", "--host", "localhost", "--port", "0"], tmp_path) as process:
        port = processes.first_line(process, tmp_path).rpartition(":")[2]
        assert _get(f"http://127.0.0.1:{port}/health") == {"status": "ok"}


def _get(url: str) -> Any:
    return httpx.get(url, timeout=DEADLINE_SECONDS).raise_for_status().json()


def test_settings_that_do_not_go_together_are_told_without_their_values(tmp_path: Path) -> None:
    variables = {"ASGARD_TARGET": "kubernetes", "ASGARD_API_TOKEN": "s3cret"}
    with processes.started(["-m", "asgard.cli", "serve"], tmp_path, **variables) as process:
        assert processes.ended(process) == 2
    assert "needs ASGARD_REGISTRY" in processes.errors(tmp_path)
    assert "s3cret" not in processes.errors(tmp_path)
