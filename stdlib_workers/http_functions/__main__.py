"""`[workers.http_functions]`: the two functions that the engine calls for functions behind a URL.

One checks a function's registration, the other calls the function.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iii import InitOptions, InvocationError, current_invocation, register_worker
from iii.declarations import load_declarations
from stdlib_workers.egress.client import Client, RequestFailed, ResponseFailed
from stdlib_workers.egress.rules import EgressDenied, Rules, rules_from
from stdlib_workers.http_functions.invocation import CallDetails, invocation_from, outcome_of, request_for, secret_of
from stdlib_workers.values import check_config, read_options

NAME = "http_functions"


class HttpFunctions:
    """Keeps no state between calls: the engine says each time where the function is."""

    def __init__(self, rules: Rules, environ: Mapping[str, str]) -> None:
        self._client = Client(rules)
        self._environ = environ

    async def check(self, payload: dict[str, Any]) -> None:
        """Raise InvocationError if a function with `payload["invocation"]` could not be called now."""
        invocation = invocation_from(payload["invocation"])
        secret_of(invocation, self._environ)
        try:
            await self._client.check(invocation.url)
        except EgressDenied as denied:
            raise _denial(denied) from None

    async def invoke(self, payload: dict[str, Any]) -> Any:
        """Call the function `payload["function_id"]` with `payload["data"]`; return the result in its response."""
        invocation = invocation_from(payload["invocation"])
        secret = secret_of(invocation, self._environ)
        data = payload.get("data")
        if isinstance(data, dict):
            data = data | {"_caller_worker_id": payload.get("caller_worker_id")}
        running = current_invocation()
        remaining_ms = running.remaining_ms if running else None
        timeout_ms = invocation.timeout_ms if remaining_ms is None else min(invocation.timeout_ms, remaining_ms)
        request = request_for(invocation, _call_details(payload), data, secret, max(timeout_ms, 1.0) / 1000)
        try:
            response = await self._client.send(request)
        except EgressDenied as denied:
            raise _denial(denied) from None
        except RequestFailed as error:
            raise InvocationError("http_request_failed", str(error), retryable=True) from None
        except ResponseFailed as error:
            raise InvocationError("http_response_failed", str(error)) from None
        return outcome_of(response)


def _denial(denied: EgressDenied) -> InvocationError:
    details = {"reason": "egress_denied", "rule": denied.reason}
    return InvocationError("url_validation_failed", str(denied), details=details)


def _call_details(payload: dict[str, Any]) -> CallDetails:
    running = current_invocation()
    trace = (running.traceparent or "").split("-") if running else []
    return CallDetails(
        str(payload["function_id"]),
        str(uuid.uuid4()),
        int(time.time()),
        ((running.caller or {}) if running else {}).get("function_id"),
        trace[1] if len(trace) > 1 else None,
    )


def main() -> None:
    """Start the worker; exit code 2 for a wrong option."""

    def parse(config: dict[str, Any]) -> Rules:
        check_config(NAME, config)
        return rules_from(config.get("security", {}), NAME)

    functions = HttpFunctions(read_options(parse), os.environ)
    worker = register_worker(options=InitOptions(worker_name=NAME))
    declared = load_declarations(Path(__file__).parent)
    for name in ("check", "invoke"):
        id, metadata = f"engine::{NAME}::{name}", {"internal": True}
        worker.register_function(id, getattr(functions, name), metadata=metadata, **declared.functions[id])


if __name__ == "__main__":
    main()
