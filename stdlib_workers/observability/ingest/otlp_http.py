"""The routes of OTLP over HTTP: `/v1/traces`, `/v1/metrics` and `/v1/logs`, as JSON or protobuf.

They respond as OTLP asks for: with the empty response of the same encoding, and with 503 when the storage has no room,
so that the sender tries again.
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
PATHS = {"/v1/traces": TRACES, "/v1/metrics": METRICS, "/v1/logs": LOGS}


def routes(ingest: Callable[[Batch], None], filter: IngestFilter, clock: Callable[[], int]) -> dict[str, Route]:
    """Return a route for each kind of request; `ingest` stores a batch, blocking."""

    def route(kind: str, request: Request) -> Response:
        batch = batch_from_otlp(kind, _decoded(kind, request), filter, clock())
        try:
            ingest(batch)
        except InvocationError as error:
            raise HttpError(503, error.message) from None
        return Response(200, request.kind, b"{}" if request.kind == JSON else b"")

    return {f"POST {path}": partial(route, kind) for path, kind in PATHS.items()}


def _decoded(kind: str, request: Request) -> Any:
    try:
        if request.kind == JSON:
            return msgspec.json.decode(request.body)
        if request.kind == PROTOBUF:
            from stdlib_workers.observability.ingest.otlp_protobuf import request_from  # an extra, and heavy

            return request_from(kind, request.body)
    except ImportError:
        raise HttpError(415, "protobuf needs `pip install 'iii-engine'`; send JSON without it") from None
    except (ValueError, RecursionError) as error:
        raise HttpError(400, f"the body is not what it says: {error}") from None
    raise HttpError(415, f"content-type must be {JSON} or {PROTOBUF}, got {request.kind[:60]!r}")
