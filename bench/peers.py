"""The servers that `serving.py` compares: how each is installed, started and asked. All load the same fitted model."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Rows = list[list[float]]

_BARE = """
import joblib, numpy, orjson, uvicorn
model = joblib.load({joblib!r})
async def app(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    answer = orjson.dumps({{"predictions": model.predict(numpy.array(orjson.loads(body)["data"])).tolist()}})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": answer}})
uvicorn.run(app, port={port}, log_level="error", access_log=False, lifespan="off")
"""

_LITSERVE = """
import joblib, litserve, numpy
class Api(litserve.LitAPI):
    def setup(self, device):
        self.model = joblib.load({joblib!r})
    def decode_request(self, request):
        return numpy.array(request["data"])
    def predict(self, rows):
        return self.model.predict(rows)
    def encode_response(self, found):
        return {{"predictions": found.tolist()}}
if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(port={port}, generate_client_file=False, log_level="error")
"""

_BENTOML = """
import bentoml, joblib, numpy
@bentoml.service(workers=1, traffic={{"timeout": 60}})
class Model:
    def __init__(self) -> None:
        self.model = joblib.load({joblib!r})
    @bentoml.api
    def predict(self, data: list[list[float]]) -> dict[str, list]:
        return {{"predictions": self.model.predict(numpy.array(data)).tolist()}}
"""


@dataclass(frozen=True)
class Started:
    """How a server is run. `files`: written into its folder first; `search`: PYTHONPATH."""

    command: list[str]
    files: Mapping[str, str] = field(default_factory=dict)
    search: Path | None = None


@dataclass(frozen=True)
class Peer:
    """`requirements`: beside the model's libraries. `start`: Python of its environment, model's folder, port."""

    requirements: tuple[str, ...]
    path: str
    body: Callable[[Rows], Any]
    start: Callable[[Path, Path, int], Started]
    predictions: Callable[[Any], list[Any]] = lambda answer: answer["predictions"]


def _data(rows: Rows) -> Any:
    return {"data": rows}


def _script(source: str) -> Callable[[Path, Path, int], Started]:
    def start(python: Path, model: Path, port: int) -> Started:
        content = source.format(joblib=str(model / "model.joblib"), port=port)
        return Started([str(python), "server.py"], {"server.py": content})

    return start


def _mlflow(python: Path, model: Path, port: int) -> Started:
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    return Started([str(python.with_name("mlflow")), "models", "serve", "-m", str(model / "mlflow"), *options])


def _mlserver(python: Path, model: Path, port: int) -> Started:
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2}
    described = {
        "name": "model",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(model / "model.joblib")},
    }
    files = {
        "settings.json": json.dumps({**settings, "parallel_workers": 0, "debug": False}),
        "model-settings.json": json.dumps(described),
    }
    return Started([str(python.with_name("mlserver")), "start", "."], files)


def _bentoml(python: Path, model: Path, port: int) -> Started:
    content = _BENTOML.format(joblib=str(model / "model.joblib"))
    command = [str(python.with_name("bentoml")), "serve", "service:Model", "--host", "127.0.0.1", "--port", str(port)]
    return Started(command, {"service.py": content})


PEERS: dict[str, Peer] = {
    "MLflow models serve": Peer(("mlflow",), "/invocations", lambda rows: {"inputs": rows}, _mlflow),
    "MLServer": Peer(
        ("mlserver", "mlserver-sklearn"),
        "/v2/models/model/infer",
        lambda rows: {
            "inputs": [{"name": "x", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": rows}],
        },
        _mlserver,
        lambda answer: answer["outputs"][0]["data"],
    ),
    "BentoML": Peer(("bentoml",), "/predict", _data, _bentoml),
    "LitServe": Peer(("litserve",), "/predict", _data, _script(_LITSERVE)),
    "bare ASGI": Peer(("uvicorn", "uvloop", "httptools", "orjson"), "/predict", _data, _script(_BARE)),
}


def environment(programs: Path, variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What every server sees: the programs of its environment, one thread for numerical libraries, and byte code."""
    kept = {name: variables[name] for name in ("HOME", "LANG") if name in variables}
    path = os.pathsep.join([str(programs), variables["PATH"]])
    return {
        **kept,
        "PATH": path,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
