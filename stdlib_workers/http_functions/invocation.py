"""What a function's registration says about its URL: the `invocation` object, read and checked. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from iii import InvocationError

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
DEFAULT_TIMEOUT_MS = 30_000
# A request that takes longer keeps a thread and a connection, whatever the caller's timeout.
MAX_TIMEOUT_MS = 60_000
# These frame the request: with a second one, server and client would see two different requests.
_FRAMING = ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# The fields of each type of auth; all are strings.
_AUTH = {"hmac": ("secret_key",), "bearer": ("token_key",), "api_key": ("header", "value_key")}


@dataclass(frozen=True, slots=True)
class HttpInvocation:
    """One function's request. `auth` names environment variables, never values."""

    url: str
    method: str = "POST"
    timeout_ms: float = DEFAULT_TIMEOUT_MS
    headers: tuple[tuple[str, str], ...] = ()
    auth: Mapping[str, str] | None = None


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
    for field in _AUTH[auth_type]:
        if not isinstance(value.get(field), str) or not value[field]:
            raise _invalid(f"auth of type {auth_type} needs {field}", value.get(field))
    if auth_type == "api_key":
        _check_name(value["header"])
    return {"type": auth_type, **{field: value[field] for field in _AUTH[auth_type]}}


def _invalid(wanted: str, got: Any) -> InvocationError:
    return InvocationError("invalid_invocation", f"invocation: {wanted}, got {got!r}")
