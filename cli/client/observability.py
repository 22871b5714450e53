"""Calls to the observability worker, for the commands that show traces, logs and metrics."""

from __future__ import annotations

from typing import Any

from cli.client.connection import Connection
from cli.client.errors import UsageError
from iii.errors import ErrorCode, InvocationError

# Traces that are searched for one whose id begins with what the user wrote.
RECENT = 1000
LEAST_PREFIX = 4
ID_LENGTH = 32


def ask(connection: Connection, function_id: str, payload: dict[str, Any] | None = None) -> Any:
    """Call one of the worker's functions. Raises UsageError if the project has no observability worker."""
    try:
        return connection.call(function_id, payload)
    except InvocationError as error:
        if error.code != ErrorCode.FUNCTION_NOT_FOUND:
            raise
        raise UsageError("nothing is observed in this project", "add it with `iii add observability`") from None


def check_trace(text: str | None) -> None:
    """Raise UsageError for a text that cannot name a trace, before the engine is asked. Pure."""
    if text is not None and len(text) < LEAST_PREFIX:
        raise UsageError(f"`{text}` is too short for a trace", f"give at least {LEAST_PREFIX} characters of its id")


def find_trace(connection: Connection, text: str | None) -> str:
    """Return the id of a trace: whole, by its first characters, or the newest. Raises UsageError if there is none."""
    if text is not None and len(text) >= ID_LENGTH:
        return text.lower()
    payload = {"sort_order": "desc", "limit": RECENT if text else 1}
    ids: list[str] = [row["trace_id"] for row in ask(connection, "engine::traces::list", payload)["spans"]]
    matching = sorted({id for id in ids if id.startswith((text or "").lower())})
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise UsageError(f"there is no trace `{text}`" if text else "there are no traces yet", "see `iii traces`")
    raise UsageError(f"`{text}` begins {len(matching)} traces", f"give more of the id: {', '.join(matching[:3])}")
