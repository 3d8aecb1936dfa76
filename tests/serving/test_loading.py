"""Why a model cannot be loaded, told to whoever deployed it."""

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from asgard.serving.loading import reason


def test_a_model_that_reads_another_from_mlflow_is_told_to_have_it_among_its_artifacts() -> None:
    said = reason(MlflowException("Logged model with ID 'm-1' not found.", RESOURCE_DOES_NOT_EXIST))
    assert said.startswith("The model cannot be loaded: MlflowException: Logged model with ID 'm-1' not found. ")
    assert 'artifacts={"base": uri}' in said


def test_another_failure_of_mlflows_is_told_as_it_is() -> None:
    assert reason(MlflowException("Unknown.")) == "The model cannot be loaded: MlflowException: Unknown."
