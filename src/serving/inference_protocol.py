"""The Open Inference Protocol, version 2, over REST (https://github.com/kserve/open-inference-protocol).

With the extension for binary tensors (https://github.com/triton-inference-server/server, extension_binary_data.md).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from . import asking, tensors
from .asking import Failure, Operation, Protocol, Write
from .loaded import LoadedModel
from .messages import Answer, Request
from .problems import InvalidInput

SERVER_NAME = "asgard"
SERVER_VERSION = "0.1.0"
EXTENSIONS = ("binary_tensor_data",)

BINARY = b"application/octet-stream"
HEADER_LENGTH = b"inference-header-content-length"
"""The header that tells where the JSON ends and the bytes of tensors begin."""

OUTPUT = "predict"
"""The output of a model that gives one without a name."""

INPUT = "input"
"""The input of a model that takes one without a name."""

_DATATYPES = {"boolean": "BOOL", "integer": "INT32", "long": "INT64", "float": "FP32", "double": "FP64"}
"""By MLflow's type; BYTES for others."""

Tensor = dict[str, Any]


def owns(path: str) -> bool:
    """Whether the path is one of the protocol's, whether or not there is anything."""
    return path == "/v2" or path.startswith("/v2/")


def error(status: int, detail: str, headers: Mapping[bytes, bytes] | None = None) -> Answer:
    """The protocol's error object."""
    return Answer(orjson.dumps({"error": detail}), status, headers=headers or {})


def operations(model: LoadedModel) -> Mapping[str, Operation]:
    """The protocol's operations by path, for the model with and without its version."""
    name = f"/v2/models/{model.info['name']}"
    infer = asking.operation(model, _protocol(model))
    described = _constant(metadata(model.info))
    ready = _constant({"name": model.info["name"], "ready": True})
    found = {
        "/v2": _constant({"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": EXTENSIONS}),
        "/v2/health/live": _constant({"live": True}),
        "/v2/health/ready": _constant({"ready": True}),
    }
    for path in (name, f"{name}/versions/{model.info['version']}"):
        found |= {path: described, f"{path}/ready": ready, f"{path}/infer": infer}
    return found


def metadata(info: Mapping[str, Any]) -> dict[str, Any]:
    """The model's metadata. `info`: the content of /metadata; without signature it tells no inputs or outputs."""
    signature = info["signature"] or {}
    return {
        "name": info["name"],
        "versions": [info["version"]],
        "platform": f"mlflow_{info['flavor']}",
        "inputs": _described(signature.get("inputs") or [], INPUT),
        "outputs": _described(signature.get("outputs") or [], OUTPUT),
    }


def _constant(content: Mapping[str, Any]) -> Operation:
    answer = Answer(orjson.dumps(content))
    return Operation("GET", lambda _: answer)


def _described(schema: Sequence[Mapping[str, Any]], unnamed: str) -> list[Tensor]:
    """MLflow's schema as the protocol tells it; -1 for sizes that vary."""
    names = [unnamed] if len(schema) == 1 else [str(position) for position in range(len(schema))]
    return [{"name": spec.get("name", name), **_type_and_shape(spec)} for spec, name in zip(schema, names, strict=True)]


def _type_and_shape(spec: Mapping[str, Any]) -> Tensor:
    if spec["type"] == "tensor":
        tensor = spec["tensor-spec"]
        return {"datatype": tensors.datatype(np.dtype(tensor["dtype"])), "shape": tensor["shape"]}
    shape = [-1]
    while spec["type"] == "array":
        spec = spec["items"]
        shape.append(-1)
    return {"datatype": _DATATYPES.get(spec["type"], tensors.BYTES), "shape": shape}


def _failed(failure: Failure) -> Answer:
    return error(400 if failure.status == 422 else failure.status, failure.detail)


def _protocol(model: LoadedModel) -> Protocol:
    schema = (model.info["signature"] or {}).get("inputs") or []
    names = [output["name"] for output in metadata(model.info)["outputs"]]
    model_head = {"model_name": model.info["name"], "model_version": model.info["version"]}

    def parse(request: Request) -> tuple[Any, Write]:
        content, binary = _split(request)
        data = to_data(_inputs(content, binary), schema)
        wanted = _wanted(content)
        default = _parameters(content).get("binary_data_output") is True
        identifier = content.get("id")
        head = model_head if identifier is None else {**model_head, "id": _of_type(identifier, str, "id")}

        def write(prediction: Any) -> Answer:
            outputs = to_outputs(model, prediction, names)
            return _written(head, _chosen(outputs, wanted, default=default))

        return data, write

    return Protocol(parse, _failed)


def _split(request: Request) -> tuple[Mapping[str, Any], bytes | None]:
    """The JSON, and the bytes after it; None where no header tells of any."""
    length = request.header(HEADER_LENGTH)
    if length is None:
        header, binary = request.body, None
    elif length.isascii() and length.isdigit() and int(length) <= len(request.body):
        header, binary = request.body[: int(length)], request.body[int(length) :]
    else:
        raise InvalidInput(f"Inference-Header-Content-Length is {length!r}; the body has {len(request.body)} bytes.")
    try:
        content = orjson.loads(header)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"The body is not JSON: {error}.") from error
    return _of_type(content, dict, "The body"), binary


def _inputs(content: Mapping[str, Any], binary: bytes | None) -> dict[str, np.ndarray]:
    """The input tensors by name, in their order."""
    found: dict[str, np.ndarray] = {}
    taken = 0
    for entry in _of_type(content.get("inputs"), list, "inputs"):
        name = _of_type(_of_type(entry, dict, "An input").get("name"), str, "An input's name")
        if name in found:
            raise InvalidInput(f"There are two inputs {name!r}.")
        try:
            kind, shape = _kind(entry), _shape(entry)
            size = _parameters(entry).get("binary_data_size")
            if size is None:
                found[name] = tensors.from_json(entry.get("data"), kind, shape)
                continue
            if binary is None:
                raise InvalidInput("its bytes need the header Inference-Header-Content-Length")
            if type(size) is not int or not 0 <= size <= len(binary) - taken:
                raise InvalidInput(f"binary_data_size is {size!r}; {len(binary) - taken} bytes are left")
            found[name] = tensors.from_bytes(binary[taken : taken + size], kind, shape)
            taken += size
        except InvalidInput as error:
            raise InvalidInput(f"Input {name!r}: {error.detail.rstrip('.')}.") from error
    if not found:
        raise InvalidInput("There are no inputs.")
    if binary and taken != len(binary):
        raise InvalidInput(f"{len(binary) - taken} bytes after the JSON belong to no input.")
    return found


def _kind(entry: Mapping[str, Any]) -> str:
    kind = entry.get("datatype")
    if not isinstance(kind, str) or kind not in tensors.DTYPES:
        raise InvalidInput(f"datatype {kind!r} is none of {', '.join(tensors.DTYPES)}")
    return kind


def _shape(entry: Mapping[str, Any]) -> list[int]:
    shape = entry.get("shape")
    if not isinstance(shape, list) or not shape or not all(type(size) is int and size > 0 for size in shape):
        raise InvalidInput("shape must be a list of whole numbers above 0")
    if len(shape) > tensors.DIMENSIONS:
        raise InvalidInput(f"shape has more than {tensors.DIMENSIONS} dimensions")
    return shape


def _parameters(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = entry.get("parameters")
    return {} if parameters is None else _of_type(parameters, dict, "parameters")


_JSON_TYPES: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}


def _of_type(value: Any, kind: type, what: str) -> Any:
    if type(value) is not kind:
        raise InvalidInput(f"{what} must be {_JSON_TYPES[kind]}.")
    return value


def to_data(inputs: Mapping[str, np.ndarray], schema: Sequence[Mapping[str, Any]]) -> Any:
    """`data` as `LoadedModel.read` takes it. `schema`: MLflow's of the model's inputs; empty where it has none.

    A tensor that has the name of no column is rows, or all there is; tensors with names are columns of shape (rows,) or
    (rows, 1), or what a signature of named tensors names. Raises InvalidInput.
    """
    named = {spec["name"]: spec["type"] for spec in schema if "name" in spec}
    first = schema[0]["type"] if schema else None
    if first == "tensor" and named:
        return {name: tensors.to_lists(array) for name, array in inputs.items()}
    if first == "tensor" and len(inputs) > 1:
        raise InvalidInput(f"The model takes one input; got {len(inputs)}.")
    if len(inputs) == 1 and not inputs.keys() & named.keys():
        (array,) = inputs.values()
        encoded = {spec["type"] for spec in schema} == {"binary"}
        if len(schema) == 1 and not named and first != "tensor":
            return _column(array, str(first), encoded=encoded)
        return tensors.to_lists(array, encoded=encoded)
    kinds = named or {str(position): spec["type"] for position, spec in enumerate(schema)}
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) > 1:
        raise InvalidInput(f"The inputs are columns of different lengths: {counts}.")
    columns = {}
    for name, array in inputs.items():
        kind = kinds.get(name, "")
        columns[name] = _column(array, kind, encoded=kind == "binary")
    if named and named.keys() <= columns.keys():
        return list(map(list, zip(*(columns[name] for name in named), strict=True)))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _column(array: np.ndarray, kind: str, *, encoded: bool) -> list[Any]:
    if array.ndim == 2 and array.shape[1] == 1 and kind != "array":
        array = array[:, 0]
    cells: list[Any] = tensors.to_lists(array, encoded=encoded)
    return cells


def to_outputs(model: LoadedModel, prediction: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The output tensors by name. `names`: those that the signature tells. Raises what the model's `encode` does.

    A frame gives a tensor a column, an object one a key, an array one for all, or one a column where the signature
    names as many. What is neither number nor text is a text: times in ISO 8601, anything else as JSON.
    """
    parts = _named(model, prediction, names)
    return {name: _tensor(model, part) for name, part in parts.items()}


def _named(model: LoadedModel, prediction: Any, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(prediction, np.ndarray):
        if len(names) > 1 and prediction.ndim == 2 and prediction.shape[1] == len(names):
            return {name: prediction[:, position] for position, name in enumerate(names)}
        return {names[0] if len(names) == 1 else OUTPUT: prediction}
    import pandas as pd  # here, as a compiled form gives arrays and is served without it

    if isinstance(prediction, pd.DataFrame):
        return {str(name): column.to_numpy() for name, column in prediction.items()}
    if isinstance(prediction, pd.Series | pd.Index):
        return _named(model, prediction.to_numpy(), names)
    parts = prediction if isinstance(prediction, Mapping) else _plain(model, prediction)
    if not isinstance(parts, Mapping):
        return {names[0] if len(names) == 1 else OUTPUT: parts}
    return {
        str(name): part.to_numpy() if isinstance(part, pd.Series | pd.Index) else part for name, part in parts.items()
    }


def _tensor(model: LoadedModel, part: Any) -> np.ndarray:
    if isinstance(part, np.generic):
        part = np.asarray(part)
    if isinstance(part, np.ndarray) and not isinstance(part, np.ma.MaskedArray):
        array: np.ndarray = np.atleast_1d(np.asarray(part))  # a matrix has two dimensions whatever is made of it
        if array.dtype.kind in "biuf":
            return array
        if set(map(type, array.flat)) <= {bytes, np.bytes_}:
            return array.astype(object)
    return tensors.from_plain(_plain(model, part))


def _plain(model: LoadedModel, part: Any) -> Any:
    return orjson.loads(model.encode(part))["predictions"]


def _wanted(content: Mapping[str, Any]) -> dict[str, bool | None] | None:
    """The outputs that are asked for, each with whether as bytes; None: all."""
    entries = content.get("outputs")
    if not entries:
        return None
    wanted: dict[str, bool | None] = {}
    for entry in _of_type(entries, list, "outputs"):
        name = _of_type(_of_type(entry, dict, "An output").get("name"), str, "An output's name")
        wanted[name] = _parameters(entry).get("binary_data")
    return wanted


def _chosen(
    outputs: Mapping[str, np.ndarray], wanted: Mapping[str, bool | None] | None, *, default: bool
) -> list[tuple[str, np.ndarray, bool]]:
    """Name, tensor, and whether as bytes. Raises InvalidInput."""
    if wanted is None:
        return [(name, array, default) for name, array in outputs.items()]
    for name in wanted:
        if name not in outputs:
            raise InvalidInput(f"There is no output {name!r}; there are {', '.join(map(repr, outputs))}.")
    return [(name, outputs[name], default if binary is None else binary is True) for name, binary in wanted.items()]


def _written(head: Mapping[str, Any], outputs: Sequence[tuple[str, np.ndarray, bool]]) -> Answer:
    described: list[Tensor] = []
    parts: list[bytes] = []
    for name, array, binary in outputs:
        output: Tensor = {"name": name, "datatype": tensors.datatype(array.dtype), "shape": array.shape}
        if binary:
            parts.append(tensors.to_bytes(array))
            output["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            output["data"] = tensors.to_json(array)
        described.append(output)
    header = orjson.dumps({**head, "outputs": described}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not parts:
        return Answer(header)
    length = {HEADER_LENGTH: str(len(header)).encode()}
    return Answer(b"".join((header, *parts)), content_type=BINARY, headers=length)
