"""Observers on the engine's loop, and the answers of `engine::observers::list` and `engine::observers::get`.

A session sees its own observers, and the functions that it has registered itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from msgspec import Raw

from iii.engine.builtins.functions import Builtins
from iii.engine.observing.observing import Observing
from iii.engine.observing.owners import CompileSchema
from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.errors import ErrorCode, InvocationError
from iii.protocol.codec import decode_object


def start_observing(
    router: Router,
    builtins: Builtins,
    turn: Callable[[], None],
    *,
    compile_schema: CompileSchema,
    wall_clock: Callable[[], float] = time.time,
) -> Observing:
    """Return the observers of a router's functions, with their timers on the running loop and their functions served.

    `turn()` sends what a timer has put into outboxes.
    """
    loop = asyncio.get_running_loop()

    def call_later(seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        def act_and_turn() -> None:
            act()
            turn()

        return loop.call_later(seconds, act_and_turn)

    observing = Observing(
        router, clock=loop.time, wall_clock=wall_clock, call_later=call_later, compile_schema=compile_schema
    )
    lists = ObserverLists(observing)
    builtins.serve("engine::observers::list", lists.list, "List the observers of functions")
    builtins.serve("engine::observers::get", lists.get, "Describe one observer")
    return observing


# Where the value of each filter stands in a row.
_FILTERS = {
    "function_id": ("source", "function_id"),
    "target": ("target", "function_id"),
    "state": ("state",),
    "worker": ("worker_name",),
}


def _value(row: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        row = row[key]
    return row


class ObserverLists:
    """Makes the rows. Filters are `function_id` (of the source), `target`, `state` and `worker`."""

    def __init__(self, observing: Observing) -> None:
        self._observing = observing

    def list(self, payload: Raw, viewer: Peer) -> dict[str, Any]:
        """Return `{"observers": [...], "functions": [...]}`, sorted by function.

        `functions` are those of workers that know observers: `local_dispatch` says whether the worker runs calls of
        its own function itself, past the engine, and `why_not` why it does not.
        """
        filters = decode_object(payload)
        rows = [
            observer.row()
            for observer in self._observing.observers.values()
            if viewer.rights is None or observer.rights is viewer.rights
        ]
        for key, path in _FILTERS.items():
            if filters.get(key) is not None:
                rows = [row for row in rows if _value(row, path) == filters[key]]
        functions: list[dict[str, Any]] = []
        for peer, told in self._observing.owners.told.items():
            if viewer.rights is None or peer is viewer:
                for function in told:
                    why_not = self._observing.owners.why_not_local(peer, function)
                    row = {"function_id": function.id, "namespace": function.namespace, "worker_name": peer.name}
                    is_local = {"local_dispatch": why_not is None}
                    functions.append(row | is_local | ({} if why_not is None else {"why_not": why_not}))
        return {
            "observers": sorted(rows, key=lambda row: (row["source"]["function_id"], row["id"])),
            "functions": sorted(functions, key=lambda row: (row["function_id"], row["namespace"], row["worker_name"])),
        }

    def get(self, payload: Raw, viewer: Peer) -> dict[str, Any]:
        """Return one observer by its `id`. `NOT_FOUND` without it."""
        id = decode_object(payload).get("id")
        observer = self._observing.observers.get(id) if isinstance(id, str) else None
        if observer is None or (viewer.rights is not None and observer.rights is not viewer.rights):
            raise InvocationError(ErrorCode.NOT_FOUND, f"observer {id} not found; engine::observers::list shows all")
        return {"observer": observer.row()}
