"""W3C trace context: what a `traceparent` says. Pure.

MERGED: W3C baggage on its way through the engine: its entry `iii.function.id` names the function that is called. Pure.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED, _RANDOM = 1, 2


class TraceContext(NamedTuple):
    """A parsed `traceparent`."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether whoever sent it records the trace."""
        return bool(self.flags & _SAMPLED)

    @property
    def is_undecided(self) -> bool:
        """Whether nobody has decided yet if the trace is recorded: a random id and nothing more."""
        return self.flags & (_SAMPLED | _RANDOM) == _RANDOM


def context_from(traceparent: str | None) -> TraceContext | None:
    """Return what a `traceparent` says; None for none, and for one that is not valid."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None or (match[4] and match[0].startswith("00")):  # only later versions may say more
        return None
    return TraceContext(match[1], match[2], int(match[3], 16))


FUNCTION_ID = "iii.function.id"
# What a value may hold as it is; ids are printable and hold no spaces.
_PLAIN = "!#$&'()*+-./:<=>?@[]^_`{|}~"
# The standard's bound of a whole header; what others put there is passed on, ours is left out beyond it.
MAX_BAGGAGE = 8192


def baggage_for(function_id: str, baggage: str | None) -> str:
    """Return the baggage of a call of `function_id`: the caller's entries, and this id in place of any other."""
    entries = [entry for entry in (baggage or "").split(",") if entry.strip() and _key(entry) != FUNCTION_ID]
    named = ",".join([*entries, f"{FUNCTION_ID}={quote(function_id, safe=_PLAIN)}"])
    return named if len(named) <= MAX_BAGGAGE else ",".join(entries)


def _key(entry: str) -> str:
    return entry.partition("=")[0].strip()
