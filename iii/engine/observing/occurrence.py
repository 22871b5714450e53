"""What observers are shown: one call that has ended, or one event of a function's worker. Pure.

The parts stay raw JSON. A part is built only for a filter that reads it, once for all observers, and only up to a size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Raw, Struct

from iii.engine.observing.filters import ABSENT, Steps, TooManySteps
from iii.engine.routing.message_forms import CALLER
from iii.engine.routing.peer import Peer
from iii.protocol import messages as m
from iii.protocol.codec import decode_value, encode_value

# Bytes of a part that filters read: building more takes too long.
MAX_READ = 1024 * 1024
# Who calls the targets (public contract).
ENGINE_NAME = "iii-engine"


class CallerDetails(Struct, omit_defaults=True, gc=False):
    """Who made a call: the worker, and the handler that it was made from. Fields of other types are left out."""

    worker_id: Any = None
    worker_name: Any = None
    function_id: Any = None
    invocation_id: Any = None
    parent: Any = None


def caller_details(field: Raw, origin: Peer) -> Raw:
    """Return the `caller` of a call as workers and filters see it: what it says, stamped with whose call it is."""
    asserted: CallerDetails | None = None
    if field is not m.ABSENT:
        asserted = _details_from(bytes(field))
    if origin.kind == "engine" and asserted is not None:
        return Raw(encode_value(asserted))
    details = asserted or CallerDetails()
    details.worker_id, details.worker_name = origin.id, origin.name or None
    return Raw(encode_value(details))


def _details_from(text: bytes) -> CallerDetails | None:
    try:
        details = decode_value(text, type=CallerDetails)
    except ValueError:
        return None
    parent = details.parent
    if isinstance(parent, dict):
        kept = CallerDetails(**{key: parent[key] for key in _NAMES if isinstance(parent.get(key), str)})
        details.parent = kept
    else:
        details.parent = None
    for name in _NAMES:
        if not isinstance(getattr(details, name), str):
            setattr(details, name, None)
    return details


_NAMES = ("worker_id", "worker_name", "function_id", "invocation_id")


def without_caller_id(data: Raw) -> Raw:
    """Return a payload without the id that the engine writes into those of sessions."""
    if f'"{CALLER}"'.encode() not in bytes(data):
        return data
    payload = decode_value(data)
    if isinstance(payload, dict):
        payload.pop(CALLER, None)
    return Raw(encode_value(payload))


class Occurrence(Struct, gc=False, eq=False):
    """A call of `function_id` that has ended with `status`. `parts` holds raw JSON by the names of `PARTS`."""

    function_id: str
    namespace: str
    invocation_id: str
    status: str
    parts: dict[str, Raw]
    started_at_ms: int
    duration_ms: float
    depth: int = 0
    baggage: str | None = None
    size: int = 0


class OccurrenceDocument:
    """The parts of an occurrence as filters read them. Implements `Document`."""

    def __init__(self, parts: Mapping[str, Raw]) -> None:
        self.steps = Steps()
        self._parts = parts
        self._values: dict[str, Any] = {}

    def value(self, root: str) -> Any:
        """Raises `TooManySteps` for a part that is too large to be built."""
        if root not in self._values:
            raw = self._parts.get(root)
            if raw is not None and len(raw) > MAX_READ:
                raise TooManySteps
            try:
                self._values[root] = ABSENT if raw is None else decode_value(raw)
            except ValueError:  # a number that no double can hold: the callee refuses it as well
                self._values[root] = ABSENT
        return self._values[root]
