"""The HTTP messages of a call: the request from the call, the call's result from the response. Pure.

Headers, signature and the meaning of status and body are those of the public contract.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from iii import InvocationError
from stdlib_workers.egress import Request, Response
from stdlib_workers.http_functions.invocation import HttpInvocation

# For each type of auth, the field that names its environment variable, and the error code when that is not set.
_SECRETS = {
    "hmac": ("secret_key", "secret_not_found"),
    "bearer": ("token_key", "token_not_found"),
    "api_key": ("value_key", "api_key_not_found"),
}


@dataclass(frozen=True, slots=True)
class CallDetails:
    """One call of a function. `timestamp` is in unix seconds."""

    function_id: str
    invocation_id: str
    timestamp: int
    caller_function: str | None = None
    trace_id: str | None = None


def secret_of(invocation: HttpInvocation, environ: Mapping[str, str]) -> str:
    """Return the secret that the invocation's auth names, "" without auth. InvocationError when it is not set."""
    if invocation.auth is None:
        return ""
    field, code = _SECRETS[invocation.auth["type"]]
    variable = invocation.auth[field]
    secret = environ.get(variable, "")
    if not secret or not secret.isprintable():
        text = f"the environment variable {variable} of the worker http_functions is not set to printable text"
        raise InvocationError(code, text)
    return secret


def request_for(invocation: HttpInvocation, call: CallDetails, payload: Any, secret: str, timeout: float) -> Request:
    """Return the request that delivers `payload`."""
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    headers = {
        "Content-Type": "application/json",
        "x-iii-Function-Path": call.function_id,
        "x-iii-Invocation-ID": call.invocation_id,
        "x-iii-Timestamp": str(call.timestamp),
    }
    if call.caller_function:
        headers["x-iii-Caller-Function"] = call.caller_function
    if call.trace_id:
        headers["x-iii-Trace-ID"] = call.trace_id
    # A header that the registration names too is sent twice: so the contract has it.
    fields = (*headers.items(), *invocation.headers, *_credentials(invocation, call.timestamp, body, secret))
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
            error = json.loads(response.body)["error"]
            code, message = error.get("code"), error.get("message")
        except (ValueError, TypeError, KeyError, AttributeError):
            code = message = None
        raise InvocationError(str(code or "http_error"), str(message or f"HTTP {response.status}"))
    if not response.body:
        return None
    try:
        return json.loads(response.body)
    except ValueError:  # of the decoding to text too
        if not 200 <= response.status < 300:
            return None  # a redirect, which is not followed, with a page for people
        text = f"HTTP {response.status} with a body that is not JSON"
        raise InvocationError("invalid_response", text) from None
