"""The routes of OTLP over HTTP: `/v1/traces`, `/v1/metrics` and `/v1/logs`, as JSON or protobuf.

They respond as OTLP asks for: in the encoding of the request, with the number of records that were refused and why, and
with 503 when the storage has no room, so that the sender tries again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from iii import InvocationError
from stdlib_workers.observability.ingest.batches import LOGS, METRICS, TRACES, Batch, IngestFilter, batch_from_otlp
from stdlib_workers.observability.ingest.http_server import HttpError, Request, Response, Route

JSON, PROTOBUF = "application/json", "application/x-protobuf"
# The name of the count of refused records.
REJECTED = {TRACES: "rejectedSpans", METRICS: "rejectedDataPoints", LOGS: "rejectedLogRecords"}
PATHS = {"/v1/traces": TRACES, "/v1/metrics": METRICS, "/v1/logs": LOGS}


def routes(ingest: Callable[[Batch], None], filter: IngestFilter, clock: Callable[[], int]) -> dict[str, Route]:
    """Return a route for each kind of request; `ingest` stores a batch, blocking."""

    def route(kind: str, request: Request) -> Response:
        batch = batch_from_otlp(kind, _decoded(kind, request), filter, clock())
        try:
            ingest(batch)
        except InvocationError as error:
            raise HttpError(503, error.message) from None
        return Response(200, request.kind, _answer(kind, request.kind, batch))

    return {f"POST {path}": partial(route, kind) for path, kind in PATHS.items()}


def _answer(kind: str, encoding: str, batch: Batch) -> bytes:
    """Return the response to a request of which `batch` was kept."""
    if encoding == PROTOBUF:
        from stdlib_workers.observability.ingest.otlp_protobuf import response_with  # heavy

        return response_with(kind, batch.malformed, batch.reasons)
    if not batch.malformed:
        return b"{}"
    rejected = {REJECTED[kind]: str(batch.malformed), "errorMessage": batch.reasons}
    return msgspec.json.encode({"partialSuccess": rejected})


def _decoded(kind: str, request: Request) -> Any:
    try:
        if request.kind == JSON:
            return msgspec.json.decode(request.body)
        if request.kind == PROTOBUF:
            from stdlib_workers.observability.ingest.otlp_protobuf import request_from  # heavy

            return request_from(kind, request.body)
    except (ValueError, RecursionError) as error:
        raise HttpError(400, f"the body is not what it says: {error}") from None
    raise HttpError(415, f"content-type must be {JSON} or {PROTOBUF}, got {request.kind[:60]!r}")
