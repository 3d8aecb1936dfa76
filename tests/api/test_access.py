"""What the log says about a request, and what it never says."""

import json
import logging
import subprocess
import sys
from typing import Any

import httpx
import pytest
import structlog

from asgard.platform.requests import DeployRequest
from asgard.progress import OnProgress

from ..waiting import until
from .fake_platform import EXAMPLE, FakeDeployed, FakePlatform, Running, post


def lines(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """Without those of uvicorn's own access log, which is shut off: pytest listens to loggers that do not propagate."""
    shut_off = logging.getLogger("uvicorn.access")
    assert not shut_off.propagate
    return [record.msg for record in caplog.records if record.name != shut_off.name]


def access_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [line for line in lines(caplog) if isinstance(line, dict) and line["event"] == "request"]


def test_a_request_is_one_line_with_an_id_that_the_answer_carries(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    answer = httpx.get(f"{server.url}/mlops/models/a%20b%0A?token=hunter2")
    until(lambda: access_lines(caplog))
    (line,) = access_lines(caplog)
    assert (line["method"], line["path"], line["status"]) == ("GET", "/mlops/models/a%20b%0A", 404)
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["seconds"] >= 0
    assert "hunter2" not in str(lines(caplog))


def test_every_request_has_an_id_of_its_own(server: Running) -> None:
    ids = {httpx.get(f"{server.url}/health").headers["x-request-id"] for _ in range(10)}
    assert len(ids) == 10


def test_bodies_and_headers_are_in_no_line_even_when_a_deploy_breaks(
    server: Running, platform: FakePlatform, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: DeployRequest, __: OnProgress) -> FakeDeployed:
        raise RuntimeError("a defect")

    platform.on_deploy = fail
    body = EXAMPLE | {"environment_vars": {"KEY": "hunter2"}}
    assert post(server.url, body, headers={"Authorization": "Bearer hunter2"}).status_code == 500
    until(lambda: access_lines(caplog))
    assert "a defect" in caplog.text
    assert "hunter2" not in caplog.text


def test_lines_of_a_deploy_carry_the_id_of_its_request(server: Running, platform: FakePlatform) -> None:
    seen = []

    def deploy(_: DeployRequest, __: OnProgress) -> FakeDeployed:
        seen.append(structlog.contextvars.get_contextvars()["request_id"])
        return FakeDeployed()

    platform.on_deploy = deploy
    assert [post(server.url).headers["x-request-id"]] == seen


LOGGING = """
import logging, sys, structlog
from asgard import logs
logs.configure("info", sys.argv[1])
structlog.get_logger("asgard.test").info("ours", answer=42)
logging.getLogger("uvicorn.error").info("theirs %d", 42)
logging.getLogger("theirs").debug("too fine")
def defect(password):
    raise RuntimeError("broken")
try:
    defect("hunter" + "2")
except RuntimeError:
    structlog.get_logger().exception("caught")
"""


def logged(output: str) -> str:
    ran = subprocess.run([sys.executable, "-c", LOGGING, output], capture_output=True, text=True, check=True)
    assert ran.stdout == ""
    return ran.stderr


def test_json_logging_is_one_object_a_line_whoever_logs() -> None:
    ours, theirs, caught = map(json.loads, logged("json").splitlines())
    assert (ours["event"], ours["answer"], ours["level"], ours["logger"]) == ("ours", 42, "info", "asgard.test")
    assert (theirs["event"], theirs["logger"]) == ("theirs 42", "uvicorn.error")
    assert "RuntimeError: broken" in caught["exception"]
    assert ours["timestamp"].endswith("Z")


@pytest.mark.parametrize("output", ["json", "console"])
def test_no_log_shows_the_variables_of_a_traceback(output: str) -> None:
    text = logged(output)
    assert "\x1b" not in text  # colours are for terminals
    assert "RuntimeError: broken" in text
    assert "hunter2" not in text
    assert "too fine" not in text
