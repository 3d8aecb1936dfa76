"""The notebook of examples/client, run cell by cell against a real API."""

from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from .live import DEPLOY_SECONDS, REPOSITORY, Live

NOTEBOOK = REPOSITORY / "examples" / "client" / "notebook.ipynb"


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


def outputs(cell: Any) -> str:
    """What a cell printed, and its value as text."""
    return "".join(one.get("text") or one["data"]["text/plain"] for one in cell.outputs)


def test_the_notebook_says_what_it_promises(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGARD_URL", live.url)
    ran = NotebookClient(read(), timeout=DEPLOY_SECONDS, kernel_name="python3").execute()
    status, deployed, predicted, refused, failed, versions, many = (
        outputs(cell) for cell in ran.cells if cell.cell_type == "code"
    )
    assert status == "'healthy'"
    assert "training: Running train.py" in deployed
    assert "infrastructure: Bringing up the stack iris-notebook" in deployed
    assert deployed.endswith(f"'{live.get('/mlops/models/iris-notebook')['tags']['asgard.inference_url']}'")
    assert [line.split()[-1] for line in predicted.splitlines()[-2:]] == ["setosa", "virginica"]
    assert refused.startswith("invalid_data /data/0 Missing column 'petal width (cm)'")
    assert failed.splitlines()[-1] == "ValueError: no data today"
    assert "Production" in versions
    assert many == "True"


def test_the_notebook_is_kept_without_what_a_run_leaves() -> None:
    code = [cell for cell in read().cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
