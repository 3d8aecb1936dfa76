"""MLflow's scoring protocol, by MLflow's own code: what clients of `mlflow models serve` send is answered alike.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/#local-inference-server-spec
"""

import logging
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from .asking import Asking, Handler, Operation
from .loaded import LoadedModel
from .messages import Answer, Request
from .problems import problem

log = logging.getLogger(__name__)


def operations(model: LoadedModel) -> Mapping[str, Operation]:
    """`POST /invocations`, and `GET /ping` and `/version`, which cost no import of MLflow."""
    ping = Answer(b"\n")
    libraries = model.info["libraries"]
    version = Answer(libraries.get("mlflow", libraries.get("mlflow-skinny", "")).encode())
    return {
        "/invocations": Operation("POST", model=Asking(invocations(model), None)),
        "/ping": Operation("GET", lambda _: ping),
        "/version": Operation("GET", lambda _: version),
    }


def invocations(model: LoadedModel) -> Handler:
    """Answers as the scoring server of the model's MLflow. That and the original are loaded for the first request.

    Problems where MLflow cannot answer: 501 where the environment lacks that server, 500 where the model does not load.
    """
    ready = cache(lambda: _scorer(model.original))

    def answer(request: Request) -> Answer:
        try:
            score = ready()
        except _NoScoringServer as error:
            return problem(
                501,
                "no_scoring_server",
                f"The model's environment has no scoring server of MLflow: {error}. Ask POST /predict, or have mlflow"
                " instead of mlflow-skinny among the model's requirements.",
            )
        except Exception as error:
            log.exception("the original cannot be loaded")
            return problem(
                500,
                "model_failed",
                f"Loading the model raised {type(error).__name__}. The traceback is in the model's log.",
            )
        return score(request)

    return answer


class _NoScoringServer(Exception):
    pass


def _scorer(original: Callable[[], Any]) -> Handler:
    try:
        from mlflow.pyfunc import scoring_server
    except ImportError as error:
        raise _NoScoringServer(str(error)) from error
    pyfunc = original()
    if hasattr(scoring_server, "catch_mlflow_exception"):  # the one for Flask; none has both
        client = scoring_server.init(pyfunc).test_client()
        return lambda request: _of_flask(client, request)
    schema = pyfunc.metadata.get_input_schema()
    return lambda request: _of_function(scoring_server.invocations, pyfunc, schema, request)


def _of_flask(client: Any, request: Request) -> Answer:
    """By the application itself, as MLflow before 2.22 has it: there may be no function, or one of another shape."""
    found = client.post("/invocations", data=request.body, content_type=request.header(b"content-type"))
    return Answer(found.data, found.status_code, found.headers["content-type"].encode())


def _of_function(invocations: Callable[..., Any], pyfunc: Any, schema: Any, request: Request) -> Answer:
    """By the function inside the FastAPI application, which itself does not start beside every FastAPI.

    Around it that application turns MLflow's errors into JSON, as here; others become FastAPI's 500.
    """
    from mlflow.exceptions import MlflowException

    try:
        found = invocations(request.body, request.header(b"content-type"), pyfunc, schema)
    except MlflowException as error:
        return Answer(error.serialize_as_json().encode(), error.get_http_status_code())  # type: ignore[no-untyped-call]
    except Exception:
        log.exception("MLflow's scoring failed")
        return Answer(b"Internal Server Error", 500, _content_type("text/plain"))
    return Answer(found.response.encode(), found.status, _content_type(found.mimetype))


def _content_type(media_type: str) -> bytes:
    """As Starlette completes it (https://starlette.dev/responses/#response)."""
    return f"{media_type}; charset=utf-8".encode() if media_type.startswith("text/") else media_type.encode()
