"""The JSON that goes in: field for field the contract, with its examples. What comes out is in `answers.py`."""

import base64
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from ..naming import MODEL_NAME_MAX
from . import validation

EXAMPLE_SCRIPT: Final = """\
import mlflow
import mlflow.sklearn
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier

X, y = make_classification(n_samples=100, n_features=5, random_state=42)
with mlflow.start_run():
    model = RandomForestClassifier(n_estimators=10, random_state=42)
    model.fit(X, y)
    mlflow.log_param("n_estimators", 10)
    mlflow.log_metric("accuracy", model.score(X, y))
    mlflow.sklearn.log_model(model, "model")
"""


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class DeploymentConfigBody(_Body):
    """How much the model may use. A field that is absent or null keeps its value; the defaults apply at creation."""

    replicas: Annotated[int, Field(ge=1, le=100)] | None = Field(default=None, json_schema_extra={"default": 1})
    memory_limit: Annotated[str, AfterValidator(validation.memory_limit)] | None = Field(
        default=None,
        description="A Kubernetes quantity of at least 64Mi.",
        json_schema_extra={"default": "2Gi"},
    )
    cpu_limit: Annotated[str, AfterValidator(validation.cpu_limit)] | None = Field(
        default=None,
        description="A Kubernetes quantity of at least 1m, a thousandth of a core.",
        json_schema_extra={"default": "1000m"},
    )


class DeployBody(_Body):
    """One deploy."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "script_content": base64.b64encode(EXAMPLE_SCRIPT.encode()).decode(),
                "script_name": "train.py",
                "experiment_name": "iris-experiment",
                "model_name": "iris-classifier",
                "requirements": ["mlflow", "scikit-learn==1.3.0"],
                "environment_vars": {"LOG_LEVEL": "info"},
                "deployment_config": {"replicas": 1, "memory_limit": "2Gi", "cpu_limit": "1000m"},
                "tags": {"team": "data-science"},
            }
        }
    )

    script_content: Annotated[
        bytes,
        AfterValidator(validation.script),
        WithJsonSchema({"type": "string", "format": "byte", "minLength": 4}),
        Field(
            description="The Python script, UTF-8, base64-encoded (RFC 4648 section 4, no line breaks). At most 1 MiB."
        ),
    ]
    script_name: Annotated[
        str,
        AfterValidator(validation.script_name),
        Field(
            description="A plain file name ending in .py.", json_schema_extra={"maxLength": validation.SCRIPT_NAME_MAX}
        ),
    ]
    experiment_name: Annotated[
        str,
        AfterValidator(validation.experiment_name),
        Field(description="Of MLflow; made where it is missing."),
    ]
    model_name: Annotated[
        str,
        AfterValidator(validation.model_name),
        Field(
            description="A DNS label: a-z, 0-9 and -.",
            json_schema_extra={"maxLength": MODEL_NAME_MAX, "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"},
        ),
    ]
    requirements: Annotated[
        list[Annotated[str, AfterValidator(validation.requirement)]],
        AfterValidator(validation.requirements),
        Field(
            max_length=validation.REQUIREMENTS_MAX, description="Names and versions (PEP 508): no options, URLs, paths."
        ),
    ]
    environment_vars: (
        Annotated[
            dict[
                Annotated[str, AfterValidator(validation.variable_name)],
                Annotated[str, AfterValidator(validation.variable_value)],
            ],
            AfterValidator(validation.variables),
        ]
        | None
    ) = Field(default=None, description="For the script and the server; kept encrypted. Absent: as before.")
    deployment_config: DeploymentConfigBody | None = None
    tags: (
        Annotated[
            dict[
                Annotated[str, AfterValidator(validation.tag_key)],
                Annotated[str, StringConstraints(max_length=validation.TAG_VALUE_MAX)],
            ],
            Field(max_length=validation.TAGS_MAX),
        ]
        | None
    ) = Field(default=None, description="For the registered model and its version in MLflow.")
