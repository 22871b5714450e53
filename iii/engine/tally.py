"""How many calls there were since somebody began to look, recorded or not. Pure; `feed.py` tells it in each batch.

The router counts all the time, on the functions themselves; this knows what stood there at the beginning.
"""

from __future__ import annotations

from typing import Any

from iii.engine.router import Router


class Tally:
    """The difference between the router's counts now and when this was made."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._totals = self._count()
        self._functions = {function: function.answered for function in router.registry}

    def _count(self) -> tuple[int, int, int, int]:
        registry = self._router.registry
        unknown = self._router.calls.counters["unknown_function"]
        answered = sum(function.answered for function in registry) + registry.past_answered + unknown
        failed = sum(function.failed for function in registry) + registry.past_failed + unknown
        return answered, failed, self._router.void_calls, self._router.enqueue_calls

    def report(self) -> dict[str, Any]:
        """Return the counts in the form of docs/observability.md."""
        changes = [now - then for now, then in zip(self._count(), self._totals, strict=True)]
        answered, failed, void, enqueued = changes
        functions = {
            function.id: count
            for function in self._router.registry
            if (count := function.answered - self._functions.get(function, 0))
        }
        counts = {"total": answered + void, "success": answered - failed, "error": failed, "deferred": void + enqueued}
        return {**counts, "by_function": functions}
