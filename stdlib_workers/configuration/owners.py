"""Owners of a configuration, who may refuse a value before it is taken.

A binding with a `configuration_id` and the metadata `{"checks": true}` is an owner's. Its function gets
`{"check": value}` and answers `{"refused": {"code", "message"}}`, or anything else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from iii import InvocationError, TriggerRequestInput
from stdlib_workers.configuration.events import Subscription
from stdlib_workers.events import Caller

# How long the function that checks a value may take.
CHECK_MS = 10_000
# The checking function is not there: its worker checks the value itself when it starts.
_AWAY = frozenset({"function_not_found", "worker_unavailable", "invocation_stopped"})


async def ask_owners(caller: Caller, bindings: Iterable[Subscription], id: str, value: Any) -> None:
    """Raise InvocationError with the reason of the first owner that refuses a value, which has its variables."""
    for target in [each.target for each in bindings if each.checks(id)]:
        request: TriggerRequestInput = {
            "function_id": target.function_id,
            "payload": {"check": value},
            "namespace": target.namespace,
            "timeout_ms": CHECK_MS,
        }
        try:
            answer = await caller.trigger_async(request)
        except InvocationError as error:
            if error.code not in _AWAY:
                raise InvocationError(error.code, error.message) from None
            continue
        if isinstance(answer, dict) and isinstance(refused := answer.get("refused"), dict):
            raise InvocationError(str(refused.get("code")), str(refused.get("message")))
