"""What the tests of tracking share: waiting, processes, and scripts that log."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from asgard import naming
from asgard.platform.tracking import Tracking

DEADLINE_SECONDS = 90.0


def processes_with(argument: Path) -> list[psutil.Process]:
    """Live processes that name the path in their command line."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if str(argument) in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@contextmanager
def script(tracking: Tracking, token: str) -> Iterator[Any]:
    """The fluent MLflow API as a script of the deploy with this token has it."""
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_RUN_CONTEXT", json.dumps({naming.TAG_DEPLOYMENT: token}))
        # The folder that the tests run in is no deploy's project: MLflow is not to take one from there.
        patch.setenv("MLFLOW_UV_AUTO_DETECT", "false")
        patch.setenv("MLFLOW_LOG_UV_FILES", "false")
        mlflow.set_tracking_uri(tracking.uri)
        try:
            yield mlflow
        finally:
            while mlflow.active_run():
                mlflow.end_run()


def log_model(mlflow: Any, text: str = "1", **more: Any) -> Any:
    """Log a small model whose folder holds `text`."""

    class Constant(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: list[str], params: Any = None) -> list[str]:
            return [text for _ in model_input]

    return mlflow.pyfunc.log_model(name="model", python_model=Constant(), pip_requirements=["mlflow"], **more)


def log_transformer(mlflow: Any, **more: Any) -> None:
    """Log a model that cannot predict."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit([[0.0], [1.0]])
    mlflow.sklearn.log_model(scaler, name="scaler", pip_requirements=["scikit-learn"], **more)
