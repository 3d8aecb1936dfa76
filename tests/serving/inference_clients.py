"""Asks a model by clients of the Open Inference Protocol, each as its documentation shows: prints what they got.

Run in an environment that has the clients: `inference_clients.py CLIENT URL`. The model takes the columns of
`models.PEOPLE`.
"""

# mypy: disable-error-code="import-not-found,misc,no-untyped-call"
# The clients are in another environment, so to mypy their classes are Any.

import json
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Annotated, Any

Got = Iterator[tuple[str, Any]]

AGE, INCOME, CITY, MEMBER = [20, 30], [1.5, 2.5], ["Oslo", "Rome"], [True, False]


def triton(url: str) -> Got:
    import numpy as np
    import tritonclient.http as http
    from tritonclient.utils import InferenceServerException

    client = http.InferenceServerClient(url.removeprefix("http://"))
    columns = {
        "age": ("INT64", np.array(AGE)),
        "income": ("FP64", np.array(INCOME)),
        "city": ("BYTES", np.array(CITY, dtype=object)),
        "member": ("BOOL", np.array(MEMBER)),
    }

    def inputs(*, as_bytes: bool, leave_out: Collection[str] = ()) -> list[Any]:
        made = []
        for name, (datatype, values) in columns.items():
            if name not in leave_out:
                made.append(http.InferInput(name, values.shape, datatype))
                made[-1].set_data_from_numpy(values, binary_data=as_bytes)
        return made

    def infer(*, out: bool | None, as_bytes: bool = True, **more: str) -> list[Any]:
        outputs = None if out is None else [http.InferRequestedOutput("predict", binary_data=out)]
        result = client.infer("iris", inputs(as_bytes=as_bytes), outputs=outputs, request_id="7", **more)
        assert result.get_response()["id"] == "7"
        array = result.as_numpy("predict")
        return [str(array.dtype), array.tolist()]

    def error(ask: Callable[[], Any]) -> list[str] | None:
        try:
            ask()
        except InferenceServerException as raised:
            return [raised.status(), raised.message()]
        return None

    yield "live", [client.is_server_live(), client.is_server_ready()]
    yield "ready", [client.is_model_ready("iris"), client.is_model_ready("iris", "1"), client.is_model_ready("other")]
    yield "extensions", client.get_server_metadata()["extensions"]
    yield "inputs", [tensor["datatype"] for tensor in client.get_model_metadata("iris", "1")["inputs"]]
    yield "bytes to bytes", infer(out=True)
    yield "bytes to JSON", infer(out=False)
    yield "JSON to bytes", infer(out=True, as_bytes=False)
    yield "JSON to JSON", infer(out=False, as_bytes=False)
    yield "all outputs", infer(out=None)
    yield "version", infer(out=True, model_version="1")
    yield "gzip", infer(out=True, request_compression_algorithm="gzip", response_compression_algorithm="gzip")
    yield "another model", error(lambda: client.infer("other", inputs(as_bytes=True)))
    yield "a column less", error(lambda: client.infer("iris", inputs(as_bytes=True, leave_out=["city"])))


def openapi(url: str) -> Got:
    from open_inference.openapi.client import OpenInferenceClient
    from open_inference.openapi.errors import BadRequestError, NotFoundError
    from open_inference.openapi.types import InferenceRequest, RequestInput

    client = OpenInferenceClient(base_url=url)
    client.check_server_liveness()
    client.check_server_readiness()
    client.check_model_readiness("iris")
    client.check_model_version_readiness("iris", "1")
    columns = [("age", "INT64", AGE), ("income", "FP64", INCOME), ("city", "BYTES", CITY), ("member", "BOOL", MEMBER)]
    inputs = [RequestInput(name=n, shape=[2], datatype=kind, data=values) for n, kind, values in columns]
    answer = client.model_infer("iris", request=InferenceRequest(id="7", inputs=inputs))
    yield "infer", [answer.id, answer.outputs[0].name, json.loads(answer.outputs[0].data.json())]
    yield "platform", client.read_model_metadata("iris").platform
    try:
        client.model_infer("iris", request=InferenceRequest(inputs=inputs[:3]))
    except BadRequestError as raised:
        yield "a column less", raised.body["error"]
    try:
        client.check_model_readiness("other")
    except NotFoundError as raised:
        yield "another model", list(raised.body)


def pydantic(url: str) -> Got:
    from pydantic_open_inference import DatatypeOverride, InputsBaseModel, OutputsBaseModel, RemoteModel

    class People(InputsBaseModel):
        age: list[int]
        income: Annotated[list[float], DatatypeOverride("FP64")]
        city: list[str]
        member: list[bool]

    class Predictions(OutputsBaseModel):
        predict: list[float]

    model = RemoteModel(model_name="iris", inputs_model=People, outputs_model=Predictions, server_url=url)
    model.validate()
    yield "ready", model.is_ready()
    yield "infer", model.infer(People(age=AGE, income=INCOME, city=CITY, member=MEMBER)).predict


if __name__ == "__main__":
    ask = {"triton": triton, "openapi": openapi, "pydantic": pydantic}[sys.argv[1]]
    print(json.dumps(dict(ask(sys.argv[2]))))  # noqa: T201
