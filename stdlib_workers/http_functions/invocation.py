"""A function behind a URL: its registration's `invocation`, a call's HTTP request, the result in the response. Pure.

Headers, signature and the meaning of status and body are those of the public contract.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from iii import InvocationError
from stdlib_workers.egress.client import Request, Response
from stdlib_workers.values import decode, encode

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
DEFAULT_TIMEOUT_MS = 30_000
# A request that takes longer keeps a thread and a connection, whatever the caller's timeout.
MAX_TIMEOUT_MS = 60_000
# These frame the request: with a second one, server and client would see two different requests.
_FRAMING = ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# For each type of auth, the field that names its environment variable, and the error code when that is not set.
_AUTH = {
    "hmac": ("secret_key", "secret_not_found"),
    "bearer": ("token_key", "token_not_found"),
    "api_key": ("value_key", "api_key_not_found"),
}


@dataclass(frozen=True, slots=True)
class HttpInvocation:
    """One function's request. `auth` names environment variables, never values."""

    url: str
    method: str = "POST"
    timeout_ms: float = DEFAULT_TIMEOUT_MS
    headers: tuple[tuple[str, str], ...] = ()
    auth: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class CallDetails:
    """One call of a function. `timestamp` is in unix seconds."""

    function_id: str
    invocation_id: str
    timestamp: int
    caller_function: str | None = None
    trace_id: str | None = None


def invocation_from(value: Any) -> HttpInvocation:
    """Return the invocation in a registration. InvocationError `invalid_invocation` names the field."""
    if not isinstance(value, dict) or not isinstance(value.get("url"), str):
        raise _invalid("url must be a string", value)
    method = value.get("method") or "POST"
    if method not in METHODS:
        raise _invalid(f"method must be one of {', '.join(METHODS)}", method)
    timeout = value.get("timeout_ms")
    timeout = DEFAULT_TIMEOUT_MS if timeout is None else timeout
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not timeout > 0:
        raise _invalid("timeout_ms must be a positive number", timeout)
    headers, auth = _headers_from(value.get("headers")), _auth_from(value.get("auth"))
    return HttpInvocation(value["url"], method, min(timeout, MAX_TIMEOUT_MS), headers, auth)


def _headers_from(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict | None):
        raise _invalid("headers must be an object", value)
    for name, text in (value or {}).items():
        _check_name(name)
        if not isinstance(text, str) or not _VALUE.fullmatch(text):
            # Not shown: it may be a secret that should have been an `auth`.
            raise _invalid(f"header {name} must be printable text", type(text).__name__)
    return tuple((value or {}).items())


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.lower() in _FRAMING:
        raise _invalid("header names are tokens, and those that frame the request are ours", name)


def _auth_from(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    auth_type = value.get("type") if isinstance(value, dict) else None
    if auth_type not in _AUTH:
        raise _invalid(f"auth.type must be one of {', '.join(_AUTH)}", auth_type)
    fields = (("header",) if auth_type == "api_key" else ()) + _AUTH[auth_type][:1]
    for field in fields:
        if not isinstance(value.get(field), str) or not value[field]:
            raise _invalid(f"auth of type {auth_type} needs {field}", value.get(field))
    if auth_type == "api_key":
        _check_name(value["header"])
    return {"type": auth_type, **{field: value[field] for field in fields}}


def _invalid(wanted: str, got: Any) -> InvocationError:
    return InvocationError("invalid_invocation", f"invocation: {wanted}, got {got!r}")


def secret_of(invocation: HttpInvocation, environ: Mapping[str, str]) -> str:
    """Return the secret that the invocation's auth names, "" without auth. InvocationError when it is not set."""
    if invocation.auth is None:
        return ""
    field, code = _AUTH[invocation.auth["type"]]
    variable = invocation.auth[field]
    secret = environ.get(variable, "")
    if not secret or not _VALUE.fullmatch(secret):
        text = f"the environment variable {variable} of the worker http_functions is not set to printable text"
        raise InvocationError(code, text)
    return secret


def request_for(invocation: HttpInvocation, call: CallDetails, payload: Any, secret: str, timeout: float) -> Request:
    """Return the request that delivers `payload`."""
    body = encode(payload)
    headers = {
        "x-iii-Function-Path": call.function_id,
        "x-iii-Invocation-ID": call.invocation_id,
        "x-iii-Timestamp": str(call.timestamp),
        "x-iii-Caller-Function": call.caller_function,
        "x-iii-Trace-ID": call.trace_id,
    }
    own_headers = [(name, value) for name, value in headers.items() if value]
    # Other headers that the registration names too are sent twice, so the contract has it; two types of one body are
    # read differently by every server.
    if not any(name.lower() == "content-type" for name, _ in invocation.headers):
        own_headers.insert(0, ("Content-Type", "application/json"))
    fields = (*own_headers, *invocation.headers, *_credentials(invocation, call.timestamp, body, secret))
    return Request(invocation.method, invocation.url, fields, body, timeout)


def _credentials(invocation: HttpInvocation, timestamp: int, body: bytes, secret: str) -> tuple[tuple[str, str], ...]:
    auth = invocation.auth
    if auth is None:
        return ()
    if auth["type"] == "bearer":
        return (("Authorization", f"Bearer {secret}"),)
    if auth["type"] == "api_key":
        return ((auth["header"], secret),)
    signed = f"{timestamp}:{base64.b64encode(body).decode()}".encode()
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return (("x-iii-Signature", f"sha256={digest}"),)


def outcome_of(response: Response) -> Any:
    """Return the result in a response, None for an empty one. InvocationError for a failure."""
    if response.status >= 400:
        try:
            error = decode(response.body)["error"]
            code, message = error.get("code"), error.get("message")
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            code = message = None
        raise InvocationError(str(code or "http_error"), str(message or f"HTTP {response.status}"))
    if not response.body:
        return None
    try:
        return decode(response.body)
    except (ValueError, RecursionError):
        if not 200 <= response.status < 300:
            return None  # a redirect, which is not followed, with a page for people
        text = f"HTTP {response.status} with a body that is not JSON"
        raise InvocationError("invalid_response", text) from None
