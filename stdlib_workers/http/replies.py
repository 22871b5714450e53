"""What goes back to the client: a status, headers and a body; how a result, or a failure, becomes one. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from iii import InvocationError

if TYPE_CHECKING:
    from starlette.responses import Response

Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
KEYS = frozenset({"status_code", "headers", "body"})
# RFC 9110: a token; and a value without control characters, so that no header can smuggle another one in.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
# They speak of one connection, which is the server's: a function may set them, as a proxy's answer has them, in vain.
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-connection te trailer transfer-encoding upgrade".split()
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


class BadResult(Exception):
    """A function returned what is no HTTP response; the message is for the log."""


@dataclass(slots=True)
class Reply:
    """One response. `headers` without the length, which the body gives; with `chunks` the body comes as they do.

    `response` is one of Starlette's, which sends itself.
    """

    status: int = 200
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    chunks: AsyncIterator[bytes] | None = None
    response: Response | None = None


class Refusal(Exception):
    """A request that gets no function's answer. `message` is shown to the client."""

    def __init__(self, status: int, code: str, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details: dict[str, Any] = fields.pop("details", None) or {}
        self.headers: Headers = fields.pop("headers", None) or []
        self.extra: dict[str, Any] = fields


def json_reply(status: int, value: Any, *headers: tuple[bytes, bytes]) -> Reply:
    """Return a reply with a JSON body."""
    return Reply(status, [JSON, *headers], orjson.dumps(value))


def reply_to(refusal: Refusal, request_id: str) -> Reply:
    """Return the envelope; one of the server's own failures names the request, as the log does."""
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.details:
        error["details"] = refusal.details
    if refusal.status >= 500:
        error["error_id"] = request_id
    return json_reply(refusal.status, {"error": error, **refusal.extra}, *refusal.headers)


def refusal_from(error: InvocationError, *, timeout_code: str = "TIMEOUT") -> Refusal:
    """Return what a failed call means for the client; never with a traceback.

    An error with a trace is one that a handler raised, or let through from a call of its own: the function failed,
    whatever the code says of somebody else.
    """
    status = 500 if error.stacktrace else STATUS_OF.get(error.code, 500)
    details, message = _public(error) if status == 400 else ({}, error.message)
    if status >= 500 and error.invocation_id:
        details["call_id"] = error.invocation_id
    code = timeout_code if status == 504 else error.code
    headers = [RETRY_AFTER] if status == 503 else []
    return Refusal(status, code, message, details=details, headers=headers)


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


def reply_from(result: Any) -> Reply:
    """Return the reply a function's result asks for: `{"status_code", "headers", "body"}`, each optional.

    Anything but an object is an empty 200, as in the public contract. BadResult for a status, a header or a body that
    HTTP cannot carry.
    """
    fields = result if isinstance(result, dict) else {}
    status = fields.get("status_code", 200)
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise BadResult(f"status_code must be a number from 200 to 599, not {status!r}")
    headers = list(headers_from(fields.get("headers") or {}))
    lengths = [value for name, value in headers if name == b"content-length"]
    if lengths:
        headers = [header for header in headers if header[0] != b"content-length"]
    given = fields.get("body", {})
    if status in _WITHOUT_BODY:
        if given not in (None, "", {}):
            raise BadResult(f"a response of status {status} has no body")
        return Reply(status, headers)
    if any(name == b"content-type" for name, _ in headers):
        body = b"" if given is None else _encode_text(given) if isinstance(given, str) else _encode(given)
    else:
        body = _encode(given)
        headers.insert(0, JSON)
    for length in lengths:
        if length != b"%d" % len(body):
            raise BadResult(
                f"content-length is {length.decode()}, the body has {len(body)} bytes; leave it to the server"
            )
    return Reply(status, headers, body)


def hint_from(result: Any) -> str | None:
    """Return what to tell the author of a function of whose result something is not sent."""
    if isinstance(result, dict) and "body" in result and "headers" not in result:
        return None
    if not isinstance(result, dict):
        lost = None if result is None else f"the {type(result).__name__} it returned"
    elif result and not KEYS & result.keys():
        lost = "the dict it returned"
    else:
        lines = headers if isinstance(headers := result.get("headers"), list) else []
        lost = ", ".join(repr(line) for line in lines if not _is_header_line(line))
        return f"of its headers {lost} is not sent; write them as 'Name: value'" if lost else None
    return f"{lost} is not sent; an http function returns status_code, headers, body" if lost else None


def headers_from(given: Any) -> Iterator[tuple[bytes, bytes]]:
    """Yield headers: of an object whose values are texts, numbers or lists of them, or of a list of `Name: value`.

    None is no header; those of a single connection are left to the server. BadResult for what is no header.
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
        if header[0] not in _HOP_BY_HOP:
            yield header


def _is_header_line(line: Any) -> bool:
    return isinstance(line, str) and ":" in line


def _header(name: str, value: Any) -> tuple[bytes, bytes]:
    text = str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int | float) else value
    if not isinstance(text, str) or not _HEADER_NAME.match(name) or not _HEADER_VALUE.match(text):
        raise BadResult(f"this is no header: {name!r}: {value!r}")
    return name.lower().encode(), text.strip(" \t").encode("latin-1")


def _encode_text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadResult("the body holds half a surrogate pair, which no encoding has") from None


def _encode(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        pass
    # It may be no more than an integer beyond 64 bits, which JSON has and orjson has not.
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadResult(f"the body is not JSON: {error}") from None
