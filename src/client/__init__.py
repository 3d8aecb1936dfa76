"""Asgard for Python programs: deploy a script or function, look at models, predict.

    from asgard.client import Client

    with Client("http://127.0.0.1:8000") as asgard:
        deployed = asgard.deploy("train.py", name="iris", requirements=["mlflow", "scikit-learn==1.3.0"])
        asgard.predict(deployed.inference_url, [[5.1, 3.5, 1.4, 0.2, 0.3]])

It needs httpx, httpx-sse and pydantic alone; `AsyncClient` is the same for asyncio.
"""

from ..answers import (
    DeployAnswer,
    Endpoints,
    FieldError,
    ModelAnswer,
    ModelWithVersions,
    Problem,
    StatusAnswer,
    VersionAnswer,
)
from ..progress import OnProgress, Progress, Stage
from .asynchronous import AsyncClient
from .errors import (
    AuthorizationFailed,
    ClientError,
    DeployInProgress,
    InfrastructureFailed,
    InfrastructureTimeout,
    InvalidData,
    InvalidRequest,
    ModelFailed,
    ModelNotFound,
    ModelProblem,
    NoModelLogged,
    NotAsgard,
    NotServing,
    OutOfSight,
    Overloaded,
    ProblemAnswered,
    RequestTooLarge,
    RequirementsConflict,
    ScriptFailed,
    ScriptOutOfMemory,
    ScriptTimeout,
    TooManyDeploys,
    Unavailable,
    Unreachable,
)
from .synchronous import Client

__all__ = [
    "AsyncClient",
    "AuthorizationFailed",
    "Client",
    "ClientError",
    "DeployAnswer",
    "DeployInProgress",
    "Endpoints",
    "FieldError",
    "InfrastructureFailed",
    "InfrastructureTimeout",
    "InvalidData",
    "InvalidRequest",
    "ModelAnswer",
    "ModelFailed",
    "ModelNotFound",
    "ModelProblem",
    "ModelWithVersions",
    "NoModelLogged",
    "NotAsgard",
    "NotServing",
    "OnProgress",
    "OutOfSight",
    "Overloaded",
    "Problem",
    "ProblemAnswered",
    "Progress",
    "RequestTooLarge",
    "RequirementsConflict",
    "ScriptFailed",
    "ScriptOutOfMemory",
    "ScriptTimeout",
    "Stage",
    "StatusAnswer",
    "TooManyDeploys",
    "Unavailable",
    "Unreachable",
    "VersionAnswer",
]
