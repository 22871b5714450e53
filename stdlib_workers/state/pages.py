"""Pages of `state::list_entries`: where the next page starts, and how much fits into a page. Pure.

A cursor names the last row returned, not a snapshot: it costs no memory, lasts as long as the data, and the next page
has the values as they are by then.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from iii import InvocationError
from stdlib_workers.storage import Row
from stdlib_workers.values import decode, encode


class Cursor(NamedTuple):
    """The scope and the position of the last row returned, and how many rows that were so far."""

    scope: str
    position: int
    offset: int


def cursor_from(text: Any, scope: str) -> Cursor:
    """Return where a page starts. InvocationError `INVALID_CURSOR` for one that is not of this scope."""
    if text is None:
        return Cursor(scope, 0, 0)
    try:
        cursor = Cursor(*msgspec.json.decode(urlsafe_b64decode(str(text).encode()), type=tuple[str, int, int]))
    except (ValueError, msgspec.MsgspecError):
        raise InvocationError("INVALID_CURSOR", f"{text!r:.80} is no cursor of state::list_entries") from None
    if cursor.scope != scope:
        raise InvocationError("INVALID_CURSOR", f"the cursor belongs to scope {cursor.scope!r:.80}, not {scope!r:.80}")
    return cursor


def page_of(rows: Sequence[Row], cursor: Cursor, total: int, limit: int, max_bytes: int) -> dict[str, Any]:
    """Return the result for `rows`, which are up to `limit` + 1 rows from the cursor on."""
    size, taken = 0, []
    for row in rows[:limit]:
        size += len(row.entry.value) + len(row.key.encode())
        if size > max_bytes:
            break
        taken.append(row)
    if rows and not taken:
        text = f"the entry {rows[0].key!r:.80} alone has {size} bytes, over max_bytes {max_bytes}"
        raise InvocationError("ROW_TOO_LARGE", text)
    done = len(taken) == len(rows)
    last = taken[-1].position if taken else cursor.position
    following = Cursor(cursor.scope, last, cursor.offset + len(taken))
    return {
        "entries": [{"key": row.key, "value": decode(row.entry.value)} for row in taken],
        "next_cursor": None if done else urlsafe_b64encode(encode(following)).decode(),
        "done": done,
        "offset": cursor.offset,
        "total": total,
    }
