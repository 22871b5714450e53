"""What goes back to the client: a status, headers and a body; how a result, or a failure, becomes one. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from starlette.responses import Response

from iii import InvocationError
from iii.arguments import Mistake
from iii.suggestions import did_you_mean

Headers = list[tuple[bytes, bytes]]
Explain = Callable[[dict[str, Any], str], Mistake]

JSON = (b"content-type", b"application/json")
KEYS = frozenset({"status_code", "headers", "body"})
# RFC 9110: a token; and a value without control characters, so that no header can smuggle another one in.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
# They are the server's to say: a function may set them, as a proxy's answer has them, in vain.
_SERVERS = frozenset(
    (
        *(b"connection", b"content-length", b"keep-alive", b"proxy-authenticate", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    )
)
_WITHOUT_BODY = frozenset({204, 205, 304})
# What the engine says of a call that it could not bring to an end. Anything else is the function's own and a 500.
STATUS_OF = {
    "invalid_payload": 400,
    "payload_too_large": 413,
    "TIMEOUT": 504,
    "overloaded": 503,
    "worker_unavailable": 503,
    "invocation_stopped": 503,
    "engine_stopping": 503,
    "SHUTDOWN": 503,
}
RETRY_AFTER = (b"retry-after", b"1")
# Longer values are not repeated in a refusal.
MAX_GOT = 200
_PATH_PARTS = re.compile(r"[.\[\]]+")


class Refusal(Exception):
    """A request that gets no function's answer. `message` is for the client, `log`, unless it is empty, for the log."""

    def __init__(self, status: int, code: str, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details: dict[str, Any] = fields.pop("details", None) or {}
        self.headers: Headers = fields.pop("headers", None) or []
        self.log: str | None = fields.pop("log", None)
        self.extra: dict[str, Any] = fields

    def respond(self, request_id: str) -> Response:
        """Return the envelope; one of the server's own failures names the request, as the log does."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            error["details"] = self.details
        if self.status >= 500:
            error["error_id"] = request_id
        return respond(self.status, [JSON, *self.headers], orjson.dumps({"error": error, **self.extra}))


class BadResult(Refusal):
    """A function returned what is no HTTP response, for this reason."""

    def __init__(self, reason: str) -> None:
        text = "the function returned no HTTP response; the log has the reason"
        super().__init__(500, "invalid_response", text, log=f"returned no HTTP response: {reason}")
        self.reason = reason


def respond(status: int, headers: Headers, body: bytes = b"") -> Response:
    """Return a response; its length is Starlette's to add."""
    response = Response(body, status)
    response.raw_headers += headers
    return response


def refusal_from(error: InvocationError, *, is_middleware: bool = False, explain: Explain | None = None) -> Refusal:
    """Return what a failed call means for the client; never with a traceback.

    An error with a trace is one that a handler raised, or let through from a call of its own: the function failed,
    whatever the code says of somebody else. One without is the engine's, or says itself which status it is
    (`http_status` in its details). `explain` says of a payload that was made of the request's parts which of them is
    refused. BadResult for headers that are none.
    """
    status = error.details.get("http_status")
    if not error.stacktrace and isinstance(status, int) and 400 <= status <= 599:
        details = {key: value for key, value in error.details.items() if key not in ("http_status", "http_headers")}
        headers = list(headers_from(error.details.get("http_headers") or {}))
        return Refusal(status, error.code, error.message, details=details, headers=headers, log="")
    if explain is not None and error.code == "invalid_payload" and not error.stacktrace:
        return refusal_of([explain(error.details, error.message)])
    status = 500 if error.stacktrace else STATUS_OF.get(error.code, 500)
    details, message = _public(error) if status == 400 else ({}, error.message)
    if status >= 500 and error.invocation_id:
        details["call_id"] = error.invocation_id
    code = "MIDDLEWARE_TIMEOUT" if is_middleware and status == 504 else error.code
    headers = [RETRY_AFTER] if status == 503 else []
    refusal = Refusal(status, code, message, details=details, headers=headers)
    if error.stacktrace or not is_middleware:
        refusal.log = ""  # the engine tells of a handler that raises, and of whatever fails for a binding
    return refusal


def refusal_of(mistakes: list[Mistake]) -> Refusal:
    """Return the answer to a request that gives its function no arguments."""
    details = {"mistakes": [mistake.fields for mistake in mistakes]}
    return Refusal(422, "invalid_payload", "; ".join(map(str, mistakes)), details=details, log="")


def _public(error: InvocationError) -> tuple[dict[str, Any], str]:
    """Return details and message of a refused payload, without a value that may hold the client's credentials."""
    details = dict(error.details)
    path, got = str(details.get("path", "$")), details.get("got")
    if not isinstance(got, dict | list) and len(str(got)) <= MAX_GOT and "headers" not in _PATH_PARTS.split(path):
        return details, error.message
    details["got"] = "an object" if isinstance(got, dict) else "a list" if isinstance(got, list) else "another value"
    expected = details.get("expected")
    must = f"must be {expected}" if isinstance(expected, str) else "does not fit the schema"
    return details, f"{path if path != '$' else 'the request'} {must}, got {details['got']}"


def response_from(result: Any) -> Response:
    """Return the response a function's result asks for: `{"status_code", "headers", "body"}`, each optional.

    Anything but an object is an empty 200, as in the public contract. BadResult for a status, a header or a body that
    HTTP cannot carry.
    """
    fields = result if isinstance(result, dict) else {}
    status = fields.get("status_code", 200)
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise BadResult(f"status_code must be a number from 200 to 599, not {status!r}")
    headers = list(headers_from(fields.get("headers") or {}))
    given = fields.get("body", {})
    if status in _WITHOUT_BODY:
        if given not in (None, "", {}, b""):
            raise BadResult(f"a response of status {status} has no body")
        return respond(status, headers)
    if isinstance(given, bytes):
        return respond(status, headers, given)
    if not any(name == b"content-type" for name, _ in headers):
        headers.append(JSON)
    elif given is None or isinstance(given, str):
        return respond(status, headers, encode_text(given or "", "the body"))
    return respond(status, headers, encode(given, "the body"))


def hint_from(result: Any) -> str | None:
    """Return what to tell the author of a function of whose result something is not sent."""
    if not isinstance(result, dict) or (result and KEYS.isdisjoint(result)):
        form = "an http function returns status_code, headers, body"
        return None if result is None else f"the {type(result).__name__} it returned is not sent; {form}"
    if not result.keys() <= KEYS:
        name = next(key for key in result if key not in KEYS)
        near = did_you_mean(name, KEYS) or "the keys of a response are status_code, headers and body"
        return f"of what it returned {name!r} is not sent; {near}"
    if isinstance(headers := result.get("headers"), list):
        lost = ", ".join(repr(line) for line in headers if not _is_header_line(line))
        return f"of its headers {lost} is not sent; write them as 'Name: value'" if lost else None
    return None


def headers_from(given: Any) -> Iterator[tuple[bytes, bytes]]:
    """Yield headers: of an object whose values are texts, numbers or lists of them, or of a list of `Name: value`.

    None is no header; those of length and connection are left to the server. BadResult for what is no header.
    """
    if isinstance(given, dict):
        pairs = [
            (name, item)
            for name, value in given.items()
            for item in (value if isinstance(value, list) else (value,))
            if item is not None
        ]
    elif isinstance(given, list):
        lines = [line.partition(":") for line in given if _is_header_line(line)]
        pairs = [(name, value) for name, _, value in lines]
    else:
        raise BadResult(f"headers must be an object or a list, not {given!r}")
    for name, value in pairs:
        header = _header(name, value)
        if header[0] not in _SERVERS:
            yield header


def _is_header_line(line: Any) -> bool:
    return isinstance(line, str) and ":" in line


def _header(name: str, value: Any) -> tuple[bytes, bytes]:
    text = str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int | float) else value
    if not isinstance(text, str) or not _HEADER_NAME.match(name) or not _HEADER_VALUE.match(text):
        raise BadResult(f"this is no header: {name!r}: {value!r}")
    return name.lower().encode(), text.strip(" \t").encode("latin-1")


def encode(value: Any, what: str) -> bytes:
    """Return JSON. BadResult where `what` is none."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        pass  # it may be no more than an integer beyond 64 bits, which JSON has and orjson has not
    try:
        return encode_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False), what)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadResult(f"{what} is not JSON: {error}") from None


def encode_text(text: str, what: str) -> bytes:
    """Return UTF-8. BadResult for what is no Unicode."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadResult(f"{what} cannot be sent: {error}") from None
