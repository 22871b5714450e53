"""OTLP over HTTP: `/v1/traces`, `/v1/metrics` and `/v1/logs`, as JSON or protobuf. Routes for the listener.

Answers as OTLP asks for: the empty response of the same encoding, and 503 when the storage has no room, so that a
sender tries again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from iii import InvocationError
from stdlib_workers.observability.ingest.batches import LOGS, METRICS, TRACES, Accepts, Intake, intake_of_request
from stdlib_workers.observability.ingest.http_server import Answer, Refused, Request, Route

JSON, PROTOBUF = "application/json", "application/x-protobuf"
PATHS = {"/v1/traces": TRACES, "/v1/metrics": METRICS, "/v1/logs": LOGS}


def routes(take: Callable[[Intake], None], accepts: Accepts, clock: Callable[[], int]) -> dict[str, Route]:
    """Return a route for each kind; `take` keeps an intake, blocking."""

    def route_for(kind: str) -> Route:
        def route(request: Request) -> Answer:
            intake = intake_of_request(kind, _decoded(kind, request), accepts, clock())
            try:
                take(intake)
            except InvocationError as error:
                raise Refused(503, error.message) from None
            return Answer(200, request.kind, b"{}" if request.kind == JSON else b"")

        return route

    return {f"POST {path}": route_for(kind) for path, kind in PATHS.items()}


def _decoded(kind: str, request: Request) -> Any:
    try:
        if request.kind == JSON:
            return msgspec.json.decode(request.body)
        if request.kind == PROTOBUF:
            return _from_protobuf(kind, request.body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not what it says: {error}") from None
    raise Refused(415, f"content-type must be {JSON} or {PROTOBUF}, got {request.kind[:60]!r}")


def _from_protobuf(kind: str, body: bytes) -> Any:
    try:
        from stdlib_workers.observability.ingest.otlp_protobuf import request_from  # an extra, and heavy
    except ImportError:
        raise Refused(415, "protobuf needs `pip install 'iii-engine[observability]'`; send JSON without it") from None
    return request_from(kind, body)
