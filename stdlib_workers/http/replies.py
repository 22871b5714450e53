"""What goes back to the client: a status, headers and a body, and how a function's result becomes one. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
KEYS = frozenset({"status_code", "headers", "body"})
# RFC 9110: a token; and a value without control characters, so that no header can smuggle another one in.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
# The server owns what frames a message; a function that could set them could desynchronize a connection.
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"upgrade", b"trailer"})
_WITHOUT_BODY = frozenset({204, 205, 304})


class BadResult(Exception):
    """A function returned what is no HTTP response; the message is for the log."""


@dataclass(slots=True)
class Reply:
    """One response. `headers` without the length, which the body gives; with `chunks` the body comes as they do."""

    status: int = 200
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    chunks: AsyncIterator[bytes] | None = None


def json_reply(status: int, value: Any, *headers: tuple[bytes, bytes]) -> Reply:
    """Return a reply with a JSON body."""
    return Reply(status, [JSON, *headers], orjson.dumps(value))


def reply_from(result: Any) -> Reply:
    """Return the reply a function's result asks for: `{"status_code", "headers", "body"}`, each optional.

    Anything but an object is an empty 200, as in the public contract. BadResult for a status, a header or a body that
    HTTP cannot carry.
    """
    fields = result if isinstance(result, dict) else {}
    status = _status(fields.get("status_code", 200))
    headers = list(_headers(fields.get("headers") or {}))
    body = fields.get("body", {})
    if status in _WITHOUT_BODY:
        if body not in (None, "", {}):
            raise BadResult(f"a response of status {status} has no body")
        return Reply(status, headers)
    if any(name == b"content-type" for name, _ in headers):
        return Reply(status, headers, _raw_body(body))
    return Reply(status, [JSON, *headers], _encode(body))


def hint_from(result: Any) -> str | None:
    """Return what to tell the author of a function whose result is lost because of its shape."""
    if result is None or (isinstance(result, dict) and (not result or KEYS & result.keys())):
        return None
    return f"the {type(result).__name__} it returned is not sent; an http function returns status_code, headers, body"


def _status(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 599:
        raise BadResult(f"status_code must be a number from 200 to 599, not {value!r}")
    return value


def _headers(given: Any) -> Iterator[tuple[bytes, bytes]]:
    """An object with text values, or a list of `Name: value`; what is not text is dropped, as in the contract."""
    if isinstance(given, dict):
        pairs = [(name, value) for name, value in given.items() if isinstance(value, str)]
    elif isinstance(given, list):
        lines = [line.partition(":") for line in given if isinstance(line, str) and ":" in line]
        pairs = [(name, value) for name, _, value in lines]
    else:
        raise BadResult(f"headers must be an object or a list, not {given!r}")
    for name, value in pairs:
        yield header(name, value.strip(" \t"))


def header(name: str, value: str) -> tuple[bytes, bytes]:
    """Return a header as bytes. BadResult when it would not be one header."""
    if not _HEADER_NAME.match(name) or not _HEADER_VALUE.match(value):
        raise BadResult(f"this is no header: {name!r}: {value!r}")
    encoded = name.lower().encode()
    if encoded in _FRAMING:
        raise BadResult(f"the header {name} belongs to the server")
    return encoded, value.encode("latin-1")


def _raw_body(body: Any) -> bytes:
    if isinstance(body, str):
        return _encode_text(body)
    return b"" if body is None else _encode(body)


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
