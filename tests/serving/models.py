"""Small models of many shapes, saved by MLflow, and bundles of them. Their code travels inside the saved models."""

# mypy: disable-error-code="misc,import-untyped,attr-defined"
# To mypy scikit-learn has no types and MLflow's PythonModel, which the models subclass, is Any.

import datetime
import json
import os
import pickle
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, Schema, TensorSpec
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import asgard.serving

cloudpickle.register_pickle_by_value(sys.modules[__name__])

X, Y = make_classification(n_samples=100, n_features=5, random_state=42)
NAMES = list("abcde")
FRAME = pd.DataFrame(X, columns=NAMES)
LABELS = np.where(Y == 1, "yes", "no")
PEOPLE = pd.DataFrame(
    {
        "age": [20, 30, 40, 50],
        "income": [1.5, 2.5, 3.5, 4.5],
        "city": ["Oslo", "Rome", "Oslo", "Paris"],
        "member": [True, False, True, False],
    }
)


class Outputs(PythonModel):
    """Returns what its constructor was given, whatever it is asked."""

    def __init__(self, output: Any) -> None:
        self.output = output

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return self.output


class Texts(PythonModel):
    def predict(self, context: Any, model_input: list[str], params: Any = None) -> list[str]:
        return [text.upper() for text in model_input]


class Objects(PythonModel):
    def predict(self, context: Any, model_input: list[dict[str, int]], params: Any = None) -> list[int]:
        return [row["a"] + row["b"] for row in model_input]


class Raw(PythonModel):
    """Without signature or hints: says what it was given."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return {"type": type(model_input).__name__, "size": len(model_input)}


class Kinds(PythonModel):
    """The type of each cell."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return [[type(cell).__name__ for cell in row] for row in model_input]


class Times(PythonModel):
    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return model_input["at"] + pd.Timedelta(days=1)


class Scaled(PythonModel):
    """The first column times a number, with a text; both are parameters."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return [f"{value * params['factor']}{params['unit']}" for value in model_input.iloc[:, 0]]


class Dates(PythonModel):
    def predict(self, context: Any, model_input: list[datetime.datetime], params: Any = None) -> list[str]:
        return [f"{type(at).__name__} {at}" for at in model_input]


class Obedient(PythonModel):
    """Does what the number asks: negative raises, 1 sleeps, 2 takes memory, 3 ends the process, 4 prints a lot."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        order = int(np.asarray(model_input)[0, 0])
        if order < 0:
            raise RuntimeError("the secret inside the model")
        if order == 1:
            time.sleep(4)
        if order == 2:
            taken = [np.ones(8 * 1024**2) for _ in range(16)]
            time.sleep(30)
            return [len(taken)]
        if order == 3:
            os._exit(7)
        if order == 4:
            for line in range(40_000):
                print(f"line {line} " + "x" * 300)  # noqa: T201
        if order == 5:
            return [os.environ.get("TOKEN", ""), os.environ["OMP_NUM_THREADS"], *sorted(os.environ)]
        return [order]


class NamedTensors(PythonModel):
    def predict(self, context: Any, model_input: dict[str, np.ndarray], params: Any = None) -> Any:
        return {"sum": model_input["x"].sum(axis=1) + model_input["y"], "x": model_input["x"]}


class Reversed(PythonModel):
    """Bytes to bytes."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        return np.array([content[::-1] for content in model_input["content"]], dtype=object)


class Sizes(PythonModel):
    """The number of rows, for each."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return [len(model_input)] * len(model_input)


class Heavy(Sizes):
    """Takes memory."""

    def load_context(self, context: Any) -> None:
        self.held = bytearray(b"x" * (100 << 20))


class Alone(Sizes):
    """Is loaded by one process at a time."""

    def load_context(self, context: Any) -> None:
        self.taken = socket.socket(socket.AF_UNIX)
        self.taken.bind(f"\0asgard-test-{os.environ['ALONE']}")


class Broken(PythonModel):
    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        raise RuntimeError("cannot predict anything")


class Unloadable(PythonModel):
    def load_context(self, context: Any) -> None:
        print("about to fail")  # noqa: T201
        raise OSError("a file of the model is missing")

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return model_input


class Referring(PythonModel):
    """Reads a pickle of an object of a class that a script defined."""

    def load_context(self, context: Any) -> None:
        self.net = pickle.loads(b"c__main__\nNet\n.")

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return model_input


class Lacking(Unloadable):
    def load_context(self, context: Any) -> None:
        Path("weights.txt").read_text()


class EndsAtLoad(Unloadable):
    def load_context(self, context: Any) -> None:
        os._exit(9)


class SlowToLoad(Unloadable):
    def load_context(self, context: Any) -> None:
        time.sleep(60)


def _sklearn(estimator: Any, **arguments: Any) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        mlflow.sklearn.save_model(
            estimator, str(path), serialization_format="cloudpickle", pip_requirements=[], **arguments
        )

    return save


def _pyfunc(model: Any, **arguments: Any) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        mlflow.pyfunc.save_model(str(path), python_model=model, pip_requirements=[], **arguments)

    return save


def _forest(x: Any, y: Any) -> Any:
    return RandomForestClassifier(n_estimators=10, random_state=42).fit(x, y)


NOISE = np.random.default_rng(0).normal(size=(500, 5))
LARGE_FOREST = _forest(NOISE, np.arange(500) % 3)
"""Of trees with more than 64 leaves, as its labels have nothing to do with its rows."""


_CITIES = make_pipeline(
    make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough"), LinearRegression()
).fit(PEOPLE, [1.0, 2.0, 3.0, 4.0])
_WORDS = make_pipeline(make_column_transformer((TfidfVectorizer(), "text")), LinearRegression()).fit(
    pd.DataFrame({"text": ["one two", "two three"]}), [1.0, 2.0]
)
_FIVE = infer_signature(FRAME)
_TWO = infer_signature({"x": np.zeros((2, 3)), "y": np.zeros(2, dtype="float32")})
_PAIR = pd.DataFrame({"a": [1.0, 2.0], "b": np.array([1.0, 3.0], "float32")})
_UNSETTLED = Schema([ColSpec(c.type, c.name, required=c.name != "city") for c in infer_signature(PEOPLE).inputs])
_ONE = infer_signature(pd.DataFrame({"order": [0.0]}))

SAVE: dict[str, Callable[[Path], None]] = {
    "specification": _sklearn(_forest(X, Y)),
    "list-example": _sklearn(_forest(X, Y), input_example=X[:2].tolist()),
    "frame": _sklearn(_forest(FRAME, Y)),
    "labels": _sklearn(LogisticRegression().fit(X, LABELS)),
    "columns": _sklearn(_forest(FRAME, Y), signature=infer_signature(FRAME, Y)),
    "example": _sklearn(_forest(FRAME, Y), input_example=FRAME.head(3)),
    "tensor": _sklearn(_forest(X, Y), signature=infer_signature(X, Y)),
    "tensor-logistic": _sklearn(LogisticRegression().fit(X, Y), signature=infer_signature(X, Y)),
    "mixed": _sklearn(_CITIES, signature=infer_signature(PEOPLE)),
    "people": _sklearn(_CITIES, signature=infer_signature(PEOPLE, np.array([0.5]))),
    "unsettled": _sklearn(_CITIES, signature=ModelSignature(_UNSETTLED)),
    "words": _sklearn(_WORDS, signature=infer_signature(pd.DataFrame({"text": ["one two"]}))),
    "texts": _pyfunc(Texts()),
    "objects": _pyfunc(Objects()),
    "raw": _pyfunc(Raw()),
    "kinds": _pyfunc(Kinds(), signature=ModelSignature(Schema([TensorSpec(np.dtype("O"), (-1, 4))]))),
    "times": _pyfunc(Times(), signature=infer_signature(pd.DataFrame({"at": [pd.Timestamp("2026-01-01")]}))),
    "params": _pyfunc(Scaled(), signature=infer_signature(FRAME, params={"factor": 2.0, "unit": "m"})),
    "dates": _pyfunc(Dates()),
    "dates-example": _pyfunc(Dates(), input_example=[datetime.datetime(2026, 11, 24)]),
    "obedient": _pyfunc(Obedient(), signature=_ONE),
    "named-tensors": _pyfunc(NamedTensors(), signature=_TWO),
    "vector": _pyfunc(Outputs([1]), signature=ModelSignature(Schema([TensorSpec(np.dtype("int32"), (-1,))]))),
    "finite": _sklearn(LinearRegression().fit(_PAIR, [1.0, 2.0]), signature=infer_signature(_PAIR)),
    "reversed": _pyfunc(Reversed(), signature=infer_signature(pd.DataFrame({"content": [b"\xff"]}))),
    "sizes": _pyfunc(Sizes()),
    "heavy": _pyfunc(Heavy()),
    "alone": _pyfunc(Alone()),
    "broken": _pyfunc(Broken(), signature=_FIVE),
    "unloadable": _pyfunc(Unloadable()),
    "referring": _pyfunc(Referring()),
    "lacking": _pyfunc(Lacking()),
    "ends-at-load": _pyfunc(EndsAtLoad()),
    "slow-to-load": _pyfunc(SlowToLoad()),
    "series": _pyfunc(Outputs(pd.Series([1.5, np.nan, np.inf]))),
    "one-column": _pyfunc(Outputs(pd.DataFrame({"score": np.array([0.1, 0.2], dtype="float32")}))),
    "several-columns": _pyfunc(
        Outputs(pd.DataFrame({"label": ["a", None], 0: [1, 2], "at": pd.to_datetime(["2026-01-01", None])}))
    ),
    "objects-with-arrays": _pyfunc(Outputs({"classes": np.array(["x", "y"]), "p": np.array([[0.5, np.nan]])})),
    "not-json": _pyfunc(Outputs(object())),
}
"""How to save each model, by name."""


def make_bundle(model: Path, folder: Path, *, version: int = 1) -> Path:
    """A bundle of a saved model, without the environment's files, which serving does not read."""
    source = Path(asgard.serving.__file__).parent
    shutil.copytree(source, folder / "server" / "asgard_server", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(model, folder / "model")
    description = {
        "schema": 1,
        "model_name": "iris",
        "model_version": str(version),
        "run_id": "abcdef0123",
        "deployment_id": f"iris-v{version}-abcdef",
        "python": "3.11",
    }
    (folder / "bundle.json").write_text(json.dumps(description))
    return folder
