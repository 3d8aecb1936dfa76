"""A span for each request, sent to where OpenTelemetry's own variables say (OTEL_EXPORTER_OTLP_ENDPOINT and others).

Names of attributes: https://opentelemetry.io/docs/specs/semconv/http/http-spans/.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

CLOSE_MILLISECONDS = 3000
"""How long the last spans may take to be sent when a worker ends."""


class Traces:
    """`info`: the content of /metadata. Raises ImportError where the model's environment has no exporter."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        about = {"service.version": str(info["version"]), "mlflow.run_id": info["run_id"]}
        if "OTEL_SERVICE_NAME" not in os.environ:
            about["service.name"] = info["name"]
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("asgard")
        self._propagator = TraceContextTextMapPropagator()
        self._kind = SpanKind.SERVER
        self._error = Status(StatusCode.ERROR)

    def ended(self, method: str, path: str | None, headers: Mapping[bytes, bytes], status: int, seconds: float) -> None:
        """A request was answered just now. `path`: None where there is no such operation."""
        now = time.time_ns()
        carrier = {
            name: headers[name.encode()].decode("latin-1")
            for name in ("traceparent", "tracestate")
            if name.encode() in headers
        }
        span = self._tracer.start_span(
            method if path is None else f"{method} {path}",
            context=self._propagator.extract(carrier),
            kind=self._kind,
            attributes={
                "http.request.method": method,
                "http.response.status_code": status,
                **({} if path is None else {"http.route": path}),
            },
            start_time=now - int(seconds * 1e9),
        )
        if status >= 500:
            span.set_status(self._error)
        span.end(now)

    def close(self) -> None:
        """Send what was not sent yet."""
        self._provider.force_flush(CLOSE_MILLISECONDS)
