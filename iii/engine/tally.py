"""How many calls there were since somebody began to look, recorded or not. Pure; `feed.py` tells it in each batch.

The router counts all the time, on the functions themselves; this knows what stood there at the beginning.
"""

from __future__ import annotations

from typing import Any

from iii.engine.peer import Owner
from iii.engine.registry import Function
from iii.engine.router import Router


class Tally:
    """The difference between the router's counts now and when this was made."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._functions = {function: (function.answered, function.failed) for function in router.registry}
        self._others = self._count_others()

    def _count_others(self) -> tuple[int, int, int, int]:
        """Return calls and failures of functions that are not there any more or never were, void and enqueued calls."""
        registry, router = self._router.registry, self._router
        unknown = router.calls.counters["unknown_function"]
        return registry.past_answered + unknown, registry.past_failed + unknown, router.void_calls, router.enqueue_calls

    def _since(self, function: Function) -> tuple[int, int]:
        answered, failed = self._functions.get(function, (0, 0))
        return function.answered - answered, function.failed - failed

    def report(self, taker: Owner | None) -> dict[str, Any]:
        """Return the counts in the form of docs/observability.md, without the calls of whoever takes them."""
        changes = [now - then for now, then in zip(self._count_others(), self._others, strict=True)]
        answered, failed, void, enqueued = changes
        functions: dict[str, int] = {}
        for function in self._router.registry:
            calls, errors = self._since(function)
            if calls and function.owner is not taker:
                answered, failed = answered + calls, failed + errors
                functions[function.id] = functions.get(function.id, 0) + calls
        counts = {"total": answered + void, "success": answered - failed, "error": failed, "deferred": void + enqueued}
        return {**counts, "by_function": functions}
