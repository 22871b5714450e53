"""OTLP's binary requests as the JSON that `otlp_json` reads, and the responses. Heavy, so imported late."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from stdlib_workers.observability.ingest.batches import LOGS, METRICS, TRACES

_REQUESTS: dict[str, Any] = {
    TRACES: ExportTraceServiceRequest,
    METRICS: ExportMetricsServiceRequest,
    LOGS: ExportLogsServiceRequest,
}
_IDS = ("traceId", "spanId", "parentSpanId")


def request_from(kind: str, body: bytes) -> Any:
    """Return a request of one kind as OTLP's JSON. ValueError for bytes that are no such request."""
    request = _REQUESTS[kind]()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise ValueError(f"this is no OTLP request: {error}") from None
    return _with_hex_ids(MessageToDict(request))


def response_with(kind: str, refused: int, reasons: str) -> bytes:
    """Return the response to a request, with the number of records that were refused and why."""
    if not refused:
        return b""
    response: Any
    if kind == TRACES:
        response = ExportTraceServiceResponse(
            partial_success=ExportTracePartialSuccess(rejected_spans=refused, error_message=reasons)
        )
    elif kind == METRICS:
        response = ExportMetricsServiceResponse(
            partial_success=ExportMetricsPartialSuccess(rejected_data_points=refused, error_message=reasons)
        )
    else:
        response = ExportLogsServiceResponse(
            partial_success=ExportLogsPartialSuccess(rejected_log_records=refused, error_message=reasons)
        )
    return bytes(response.SerializeToString())


def _with_hex_ids(value: Any) -> Any:
    # Protobuf's JSON mapping writes bytes as base64; OTLP writes ids in hexadecimal.
    if isinstance(value, list):
        return [_with_hex_ids(item) for item in value]
    if isinstance(value, dict):
        return {
            name: b64decode(inner).hex() if name in _IDS and isinstance(inner, str) else _with_hex_ids(inner)
            for name, inner in value.items()
        }
    return value
