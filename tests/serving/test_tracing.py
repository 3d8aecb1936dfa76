"""Spans of requests, as a collector of OpenTelemetry receives them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from asgard.serving.application import Application
from asgard.serving.asking import Asking, Operation
from asgard.serving.messages import Answer, Request
from asgard.serving.metrics import Metrics, SharedNumbers
from asgard.serving.problems import problem
from asgard.serving.tracing import Traces

from .http_server import listening

INFO = {"name": "iris", "version": "3", "run_id": "abc"}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """The endpoint of a server that takes OTLP over HTTP, and what it was sent."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            received.append(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


def answered(request: Request) -> Answer:
    return problem(500, "model_failed", "It failed.") if request.body == b"fail" else Answer(request.body)


def attributes(found: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in found}


def test_each_request_is_a_span_within_its_clients_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    operations = {"/predict": Operation("POST", model=Asking(answered, None))}
    with collector() as (endpoint, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        traces = Traces(INFO)
        with listening([Application(operations, Metrics(SharedNumbers(1), 0, operations, {}), traces=traces)]) as (
            port,
        ):
            url = f"http://127.0.0.1:{port}"
            httpx.post(f"{url}/predict", content=b"x", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
            httpx.post(f"{url}/predict", content=b"fail")
            httpx.get(f"{url}/secret-7")
        traces.close()
    resources = [resource for request in received for resource in request.resource_spans]
    about = attributes(resources[0].resource.attributes)
    assert (about["service.name"], about["service.version"], about["mlflow.run_id"]) == ("iris", "3", "abc")
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    assert [span.name for span in spans] == ["POST /predict", "POST /predict", "GET"]
    assert (spans[0].trace_id.hex(), spans[0].parent_span_id.hex()) == (TRACE, PARENT)
    assert all(span.start_time_unix_nano < span.end_time_unix_nano for span in spans)
    found = [attributes(span.attributes) for span in spans]
    assert [(a["http.request.method"], a["http.response.status_code"], a.get("http.route")) for a in found] == [
        ("POST", 200, "/predict"),
        ("POST", 500, "/predict"),
        ("GET", 404, None),
    ]
    assert [span.status.code for span in spans] == [0, 2, 0]
    assert "secret-7" not in str(received)


def test_the_service_has_the_name_that_opentelemetry_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as (endpoint, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "flowers")
        traces = Traces(INFO)
        traces.ended("GET", "/health", {}, 200, 0.001)
        traces.close()
    assert attributes(received[0].resource_spans[0].resource.attributes)["service.name"] == "flowers"
