"""Adds to a bundle the compiled form of its model, if one answers as the model does.

Runs in the model's own environment, as it unpickles what was posted. See `loading` for what it writes.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
from mlflow.pyfunc import PyFuncModel

from . import ARRAY_FLAVORS, COMPILED, compiled, forms, inputs, model, outputs, single_rows, verification
from .export import Export, export
from .forms import NotExportable
from .health import check
from .loaded import Predict
from .metadata import flavor, of_model
from .signatures import choose_input, features, input_schema, is_required
from .verification import Different

log = logging.getLogger(__name__)

_FLAVORS = ("sklearn", "xgboost")


def write(bundle: Path) -> Mapping[str, Any]:
    """Compile the bundle's model; gives the content of about.json."""
    folder = bundle / COMPILED
    folder.mkdir()
    about = _compile(bundle, folder)
    if about.get("form") is None:
        for path in folder.iterdir():
            path.unlink()
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n")
    return about


def _compile(bundle: Path, folder: Path) -> dict[str, Any]:
    """Without `form` where there is none: {"reason", "batches"}."""
    path = bundle / "model"
    try:
        loaded = mlflow.pyfunc.load_model(str(path), suppress_warnings=True)
        reader = choose_input(loaded)
        checked = check(loaded.metadata, path, reader, loaded.predict)
        inner = model.choose_predict(loaded, reader)
    except Exception as error:  # the worker meets it again, and says it to whoever deploys
        return {"reason": f"The model raised {type(error).__name__} when it was loaded to be compiled."}

    def original(rows: Any) -> Any:
        return inner(reader.wrap(rows))

    try:
        read = _reader_spec(loaded)
        width = single_rows.width(read)
    except NotExportable as error:
        return {"reason": str(error), "batches": False}
    whole = _whole(read, width)
    reason = "There is no compiled form of it."
    try:
        if flavor(loaded.metadata) not in _FLAVORS or (loaded.metadata.signature and loaded.metadata.signature.params):
            raise NotExportable(f"There is no compiled form of models of the flavour {flavor(loaded.metadata)}.")
        if loaded.metadata.flavors["python_function"].get("predict_fn", "predict") != "predict":
            raise NotExportable("Only predict has a compiled form.")
        for found in export(_raw(loaded)):
            try:
                about = _verify(found, folder, reader, read, original, whole)
            except Different as error:
                reason = f"Its compiled form does not answer as it does: {error}"
                continue
            return {**about, "model": of_model(loaded.metadata, checked, model.example(loaded, path, reader))}
    except NotExportable as error:
        reason = str(error)
    except Exception as error:
        log.exception("the model cannot be compiled")
        reason = f"It cannot be compiled: {type(error).__name__}."
    rows = reader.read(_data(verification.rows(width, {}, whole=whole)[:: verification.ROWS // 64], whole))
    batches = (
        flavor(loaded.metadata) in ARRAY_FLAVORS
        and isinstance(rows, np.ndarray)
        and verification.together_as_alone(original, rows)
    )
    return {"reason": reason, "batches": batches}


def _verify(
    found: Export,
    folder: Path,
    reader: inputs.Reader,
    read: Mapping[str, Any],
    original: Predict,
    whole: np.ndarray,
) -> dict[str, Any]:
    """The content of about.json but for what MLflow tells. Raises Different."""
    for name, array in found.arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    if found.leaves is not None:
        (folder / forms.LEAVES).write_bytes(found.leaves)
    score, parse = forms.scores(folder, found.spec), compiled.reader(read)
    form = forms.decided(folder, found.spec, score)
    rows = verification.rows(len(whole), found.thresholds, whole=whole)
    data = _data(rows, whole)
    both = reader.read(data), parse(data)
    verification.compare(original, form, *both)
    single = single_rows.load(folder, found.spec, read, score)

    def takes(odd: float) -> bool:
        try:
            some = _data(verification.with_odd(rows, odd, whole=whole), whole)
            return verification.takes(original, form, reader.read(some), parse(some))
        except Exception:
            return False

    kept = data[: verification.KEPT]
    expected = json.loads(outputs.encode(original(reader.read(kept))))["predictions"]
    return {
        "schema": 1,
        "form": "numpy" if found.leaves is None else "onnxruntime",
        "verified_rows": len(rows),
        "spec": found.spec,
        "reader": read,
        "nan": takes(float("nan")),
        "infinite": takes(float("inf")) and takes(float("-inf")),
        "batches": verification.together_as_alone(form, both[1][:128]),
        "single": single is not None and verification.single_alike(single, form(both[1]), data),
        "check": {"data": kept, "predictions": expected},
    }


def _reader_spec(loaded: PyFuncModel) -> dict[str, Any]:
    """See `compiled.reader`. Raises NotExportable for a model that is not asked with rows of numbers."""
    meta = loaded.metadata
    schema = input_schema(meta)
    if schema is None:
        names, width = features(loaded)
        if meta.signature is not None or width is None or _example_is_an_object(meta):
            raise NotExportable("It does not tell how many numbers it takes.")
        return {"kind": "untyped", "names": names, "width": width}
    if schema.is_tensor_spec():
        (spec, *more) = schema.inputs
        if more or schema.has_input_names() or len(spec.shape) != 2 or spec.shape[1] < 0:
            raise NotExportable("It does not take rows of numbers.")
        if np.dtype(spec.type).kind != "f" and np.dtype(spec.type) not in (np.int32, np.int64):
            raise NotExportable("It does not take rows of fractions, or of whole numbers of 32 or 64 bits.")
        return {"kind": "tensor", "dtype": str(np.dtype(spec.type)), "shape": [int(n) for n in spec.shape]}
    kinds = [getattr(spec.type, "name", None) for spec in schema.inputs]
    if not set(kinds) <= {"integer", "long", "float", "double"} or not all(map(is_required, schema.inputs)):
        raise NotExportable("It takes columns that are no numbers, or need not be there.")
    columns: list[Any] = [position if spec.name is None else spec.name for position, spec in enumerate(schema.inputs)]
    return {"kind": "columns", "names": columns, "kinds": kinds}


def _whole(read: Mapping[str, Any], width: int) -> np.ndarray:
    """By column, whether it takes whole numbers alone."""
    if read["kind"] == "tensor":
        return np.full(width, np.dtype(read["dtype"]).kind == "i")
    return np.array([kind in ("integer", "long") for kind in read.get("kinds", ["double"] * width)])


def _example_is_an_object(meta: Any) -> bool:
    return (meta.saved_input_example_info or {}).get("type") == "json_object"


def _raw(loaded: PyFuncModel) -> Any:
    """The fitted model that MLflow has wrapped."""
    impl = loaded._model_impl
    for name in ("sklearn_model", "xgb_model"):
        if hasattr(impl, name):
            return getattr(impl, name)
    return impl.get_raw_model() if hasattr(impl, "get_raw_model") else impl


def _data(rows: np.ndarray, whole: np.ndarray) -> list[list[Any]]:
    """Rows as they would be parsed from JSON: what is missing is null."""
    return [
        [
            None if value != value else int(value) if is_whole else value
            for value, is_whole in zip(row, whole, strict=True)
        ]
        for row in rows.tolist()
    ]
