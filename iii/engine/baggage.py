"""W3C baggage on its way through the engine: its entry `iii.function.id` names the function that is called. Pure."""

from __future__ import annotations

from urllib.parse import quote

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
