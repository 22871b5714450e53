"""The request object that a function gets, from what the server parsed. Pure."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from stdlib_workers.http.failures import Refusal
from stdlib_workers.http.replies import Headers
from stdlib_workers.http.routes import Match

MAX_QUERY_FIELDS = 1000
# An id of zeros is none.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")
_mint = random.Random().getrandbits


@dataclass(slots=True)
class Request:
    """One HTTP request. `path` is the URL's path as it was sent; `headers` have lower-case names."""

    method: str
    path: str
    query: bytes
    raw_headers: Headers
    request_id: str
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        # Repeated: the last one, as in the contract.
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.raw_headers}


def trace_from(request: Request) -> dict[str, str]:
    """Return the trace that the request belongs to: the client's (W3C trace context), else a new one.

    A new one has the flags 02: its id is random, and whether it is recorded nobody has decided yet.
    """
    given = request.headers.get("traceparent", "")
    if not _TRACEPARENT.match(given):
        return {"traceparent": f"00-{_mint(128):032x}-{_mint(64):016x}-02"}
    given = given[:-2] + ("01" if int(given[-2:], 16) & 1 else "00")
    baggage = request.headers.get("baggage")
    return {"traceparent": given, "baggage": baggage} if baggage else {"traceparent": given}


def payload_from(request: Request, match: Match) -> dict[str, Any]:
    """Return the request as the route's function gets it, with `body` still null."""
    params, everything = parse_query(request.query)
    pattern = match.route.pattern
    return {
        "method": request.method,
        "path": pattern,
        "path_params": match.params,
        "query_params": params,
        "query_params_all": everything,
        "headers": request.headers,
        "body": None,
        "trigger": {"type": "http", "path": pattern, "method": request.method},
    }


def parse_query(query: bytes) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return each parameter's last value, and all of them. Refusal 400 for what is not UTF-8."""
    if not query:
        return {}, {}
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS, errors="strict")
    except ValueError as error:
        raise Refusal(400, "invalid_query", f"the query cannot be read: {error}") from None
    everything: dict[str, list[str]] = {}
    for name, value in pairs:
        everything.setdefault(name, []).append(value)
    return {name: values[-1] for name, values in everything.items()}, everything
