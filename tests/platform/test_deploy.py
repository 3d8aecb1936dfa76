"""What the flow does where a step's own clean-up fails; its whole is tested end to end."""

from pathlib import Path
from typing import Any

import pytest

from asgard.errors import ScriptFailed
from asgard.platform import deploy, training
from asgard.platform.admission import Admission
from asgard.platform.deploy import Tools
from asgard.platform.journal import Journal
from asgard.platform.requests import DeploymentChanges, DeployRequest
from asgard.platform.script_templates import ScriptTemplates
from asgard.settings import Settings


def test_the_scripts_failure_is_told_also_where_mlflow_went_down_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ScriptFailed("train.py ended with exit code 1.", log_tail=["ConnectionError: MLflow is gone"])

    monkeypatch.setattr(training, "run_script", fail)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = Settings(data_dir=tmp_path, mlflow_tracking_uri="http://127.0.0.1:9")
    request = DeployRequest(b"", "train.py", "iris", "iris", (), None, DeploymentChanges(), None)
    with pytest.raises(ScriptFailed, match="exit code 1") as failed:
        deploy._train(
            Tools(settings, None, Admission(1, 1), ScriptTemplates()),  # type: ignore[arg-type]
            request,
            Journal("token", "iris", None),
            tmp_path,
            None,  # type: ignore[arg-type]
            {},
            lambda _: None,
        )
    assert failed.value.run_id is None
