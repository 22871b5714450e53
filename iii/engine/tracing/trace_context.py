"""W3C trace context and baggage of calls. Pure.

Parses `traceparent`, and writes the one baggage entry that is the engine's: `iii.function.id`, the called function.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED, _RANDOM = 1, 2
FUNCTION_ID = "iii.function.id"
# Characters that a baggage value holds unescaped; ids are printable and hold no spaces.
_PLAIN = "!#$&'()*+-./:<=>?@[]^_`{|}~"
# Characters of a whole baggage header (W3C): the caller's entries pass, ours is left out if it would exceed them.
MAX_BAGGAGE = 8192


class TraceContext(NamedTuple):
    """A parsed `traceparent`."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether the sender records the trace."""
        return bool(self.flags & _SAMPLED)

    @property
    def is_undecided(self) -> bool:
        """Whether the sender leaves the decision to the engine: the flags say that the id is random, and no more."""
        return self.flags & (_SAMPLED | _RANDOM) == _RANDOM


def context_from(traceparent: str | None) -> TraceContext | None:
    """Parse a `traceparent`; None without one, and for one that is not valid."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None or (match[4] and match[0].startswith("00")):  # only later versions have more fields
        return None
    return TraceContext(match[1], match[2], int(match[3], 16))


def is_unsampled(traceparent: str | None) -> bool:
    """Whether a valid `traceparent` says that its sender does not record the trace."""
    context = context_from(traceparent)
    return context is not None and not context.flags


def baggage_for(function_id: str, baggage: str | None) -> str:
    """Return the baggage of a call of `function_id`: the caller's entries, and this id in place of any other."""
    entries = [
        entry
        for entry in (baggage or "").split(",")
        if entry.strip() and entry.partition("=")[0].strip() != FUNCTION_ID
    ]
    with_id = ",".join([*entries, f"{FUNCTION_ID}={quote(function_id, safe=_PLAIN)}"])
    return with_id if len(with_id) <= MAX_BAGGAGE else ",".join(entries)
