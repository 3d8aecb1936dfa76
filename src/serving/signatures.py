"""How a model is to be asked, read once from its signature, or from the fitted model where it has none."""

from typing import Any

import numpy as np
from mlflow.models import Model
from mlflow.pyfunc import PyFuncModel

from . import ARRAY_FLAVORS, NUMBER_FLAVORS, frames, inputs
from .metadata import flavor

_MADE = {
    "boolean": False,
    "integer": 0,
    "long": 0,
    "float": 0.0,
    "double": 0.0,
    "string": "",
    "binary": "",
    "datetime": "2000-01-01T00:00:00Z",
}

_WRAPPED = ("sklearn_model", "xgb_model", "lgb_model", "cb_model")


def input_schema(meta: Model) -> Any:
    """The signature's inputs, None where the model has no signature, or one that it enforces itself by type hints."""
    if getattr(meta, "_is_signature_from_type_hint", bool)():
        return None
    return meta.get_input_schema()  # type: ignore[no-untyped-call]


def choose_input(model: PyFuncModel) -> inputs.Reader:
    """From `data` to the input of predict: by the signature, else by what the fitted model tells of its features."""
    meta = model.metadata
    schema = input_schema(meta)
    if schema is None:
        example = (meta.saved_input_example_info or {}).get("type")
        if meta.signature is not None or example == "json_object":
            return inputs.Reader(_as_is)
        names, width = features(model)
        return frames.untyped(
            names,
            width,
            as_array=example == "ndarray" or flavor(meta) in ARRAY_FLAVORS,
            only_numbers=flavor(meta) in NUMBER_FLAVORS,
        )
    if schema.is_tensor_spec():
        tensors: dict[Any, Any] = {spec.name: (np.dtype(spec.type), tuple(spec.shape)) for spec in schema.inputs}
        if not schema.has_input_names():
            return inputs.Reader(inputs.tensor(*next(iter(tensors.values()))))
        return inputs.Reader(inputs.named_tensors(tensors))
    return frames.columns(columns_of(schema))


def columns_of(schema: Any) -> list[inputs.Column]:
    """The columns of a schema that is not of tensors."""
    return [
        inputs.Column(
            name=position if spec.name is None else spec.name,
            kind=_kind(spec),
            required=is_required(spec),
        )
        for position, spec in enumerate(schema.inputs)
    ]


def is_required(spec: Any) -> bool:
    """Whether an input must be there. MLflow before 2.10 tells which are `optional`."""
    return bool(getattr(spec, "required", not getattr(spec, "optional", False)))


def made_data(schema: Any) -> Any:
    """`data` of one row of zeros and empty values that fits the schema; None where it holds nested types."""
    if schema.is_tensor_spec():
        made = {s.name: np.zeros([max(n, 1) for n in s.shape], dtype=np.dtype(s.type)).tolist() for s in schema.inputs}
        return made if schema.has_input_names() else next(iter(made.values()))
    kinds = [_kind(spec) for spec in schema.inputs]
    return [[_MADE[kind] for kind in kinds]] if all(kind in _MADE for kind in kinds) else None


def only_fractions(schema: Any) -> bool:
    """Whether every input is a fractional number."""
    if schema.is_tensor_spec():
        return all(np.dtype(spec.type).kind == "f" for spec in schema.inputs)
    return all(_kind(spec) in ("double", "float") for spec in schema.inputs)


def is_matrix(schema: Any) -> bool:
    """Whether a schema of tensors is of one without name: rows of fractional numbers."""
    (spec, *_) = schema.inputs
    return not schema.has_input_names() and len(spec.shape) == 2 and np.dtype(spec.type).kind == "f"


def features(model: PyFuncModel) -> tuple[list[str] | None, int | None]:
    """Names and number of the features that the model was fitted with, as far as it tells."""
    impl = model._model_impl
    wrapped = [getattr(impl, name) for name in _WRAPPED if hasattr(impl, name)]  # MLflow 2 has no get_raw_model
    raw = impl.get_raw_model() if hasattr(impl, "get_raw_model") else next(iter(wrapped), impl)
    for attribute in ("feature_names_in_", "feature_names", "feature_name_"):
        names = _attribute(raw, attribute)
        # LightGBM makes names up where it was given none.
        if isinstance(names, list | tuple | np.ndarray) and [*names] != [f"Column_{i}" for i in range(len(names))]:
            return [str(name) for name in names], len(names)
    for attribute in ("n_features_in_", "num_features", "num_feature"):
        count = _attribute(raw, attribute)
        count = count() if callable(count) else count
        if isinstance(count, int | np.integer):
            return None, int(count)
    return None, None


def _as_is(data: Any) -> Any:
    return data


def _kind(spec: Any) -> str:
    name = getattr(spec.type, "name", None)
    return name if isinstance(name, str) else "object"


def _attribute(raw: Any, name: str) -> Any:
    try:
        return getattr(raw, name, None)
    except Exception:  # properties of models that are not fitted raise what they like
        return None
