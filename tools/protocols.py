"""Prints the table of docs/serving.md: which client speaks which protocol with a model's server, and how that went.

Each line runs the tests in which that client asks a server.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
TESTS: Final = "tests/serving"

CLIENTS: Final = (
    ("Open Inference Protocol v2, JSON and binary", "tritonclient", f"{TESTS}/test_inference_clients.py", "triton"),
    ("Open Inference Protocol v2", "open-inference-openapi", f"{TESTS}/test_inference_clients.py", "made_from"),
    ("Open Inference Protocol v2", "pydantic-open-inference", f"{TESTS}/test_inference_clients.py", "typed_models"),
    ("MLflow's scoring protocol", "httpx, beside `mlflow models serve`", f"{TESTS}/test_scoring.py", ""),
    ("MLflow's scoring protocol, MLflow 2", "httpx, beside its server", f"{TESTS}/test_mlflow2.py", ""),
    ("`/predict`", "asgard.client", "tests/client", ""),
    ("Prometheus", "prometheus-client's parser", f"{TESTS}/test_metrics.py", ""),
    ("OpenAPI 3.1", "openapi-spec-validator, jsonschema", f"{TESTS}/test_openapi.py", ""),
)
"""Protocol, client, tests, and what their names hold."""


def main() -> int:
    """The exit code: 1 where a test failed."""
    rows = [(protocol, client, _outcome(tests, named)) for protocol, client, tests, named in CLIENTS]
    print("| protocol | client | tests |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return int(any("passed" not in outcome or "failed" in outcome for _, _, outcome in rows))


def _outcome(tests: str, named: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", tests, "-k", named]
    last = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()[-1]
    return ", ".join(re.findall(r"\d+ (?:passed|failed|errors?)", last)) or last


if __name__ == "__main__":
    sys.exit(main())
