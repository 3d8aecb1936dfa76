"""The platform's own MLflow client."""

import subprocess
import sys
from pathlib import Path

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
