"""A stand-in of an OpenTelemetry collector: speaks OTLP/HTTP, parses protobuf with OpenTelemetry's own messages."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

KINDS: dict[str, Any] = {
    "/v1/traces": (ExportTraceServiceRequest, ExportTraceServiceResponse),
    "/v1/metrics": (ExportMetricsServiceRequest, ExportMetricsServiceResponse),
    "/v1/logs": (ExportLogsServiceRequest, None),
}


class Collector:
    """What came in, parsed: protobuf messages, and for JSON the object. `status`: what it answers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.changed = Condition()

    def of(self, path: str) -> list[Any]:
        """Return the requests of a path."""
        return [request for where, request in self.requests if where == path]

    def spans(self) -> list[Any]:
        """Return every span that came in, as OpenTelemetry's message."""
        requests = self.of("/v1/traces")
        return [s for r in requests for rs in r.resource_spans for ss in rs.scope_spans for s in ss.spans]

    def wait(self, condition: Any, seconds: float = 20.0) -> None:
        """Wait until it has what is asked for."""
        with self.changed:
            assert self.changed.wait_for(condition, seconds), self.requests

    def take(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """Parse one request."""
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request_kind, response_kind = KINDS[path]
        if headers["content-type"] == "application/json":
            request: Any = json.loads(body)
        else:
            assert headers["content-type"] == "application/x-protobuf"
            request = request_kind()
            request.ParseFromString(body)
        with self.changed:
            self.bodies.append(body)
            self.headers.append(headers)
            self.requests.append((path, request))
            self.changed.notify_all()
        return self.status, response_kind().SerializeToString() if response_kind else b"{}"


@contextmanager
def collector() -> Iterator[tuple[Collector, str]]:
    """Yield a running collector and its address."""
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = made.take(self.path, headers, self.rfile.read(int(headers["content-length"])))
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield made, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
