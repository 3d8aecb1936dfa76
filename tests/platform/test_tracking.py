"""The platform's own MLflow client."""

import base64
import subprocess
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from asgard.errors import TrackingUnavailable
from asgard.platform import mlflow_server, runs
from asgard.settings import Settings

ASK = """
import sys
sys.path.insert(0, sys.argv[1])
from asgard.platform.tracking import connect
client = connect("http://127.0.0.1:9")
try:
    client.search_experiments()
except Exception as error:
    print(type(error).__name__)
print([name for name in ("feast", "of_the_company") if name in sys.modules])
"""

PROVIDER = """
from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider
class Provider(RequestHeaderProvider):
    def in_context(self): return True
    def request_headers(self): return {"X-Team": "a"}
"""


def test_plugins_of_mlflow_are_used_but_feasts_which_takes_seconds_and_sends_the_pods_own_token(tmp_path: Path) -> None:
    (tmp_path / "of_the_company.py").write_text(PROVIDER)
    info = tmp_path / "of_the_company-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: of-the-company\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mlflow.request_header_provider]\ncompany = of_the_company:Provider\n")
    environment = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    answer = subprocess.run(
        [sys.executable, "-c", ASK, tmp_path], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines() == ["MlflowException", "['of_the_company']"]


def test_user_and_password_in_the_address_are_sent_and_are_in_nothing_that_mlflow_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(self.headers.get("Authorization", ""))
            self.send_error(403)

        def log_message(self, *_: object) -> None: ...

    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")  # so that they are again as they were
    with HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        settings = Settings(data_dir=tmp_path, mlflow_tracking_uri=f"http://some%40one:s3cr%2Ft@{address}")
        tracking = mlflow_server.tracking(settings)
        with pytest.raises(TrackingUnavailable) as raised:
            runs.ensure_experiment(tracking, "churn")
        server.shutdown()
    assert tracking.uri == f"http://{address}"
    assert base64.b64decode(sent[0].removeprefix("Basic ")) == b"some@one:s3cr/t"
    assert "s3cr" not in "".join(traceback.format_exception(raised.value))
