"""`iii trigger --watch`: wait until the worker behind a function runs new code.

Asks the engine, four times a second, which generation the worker is in: a reload that leaves the list of functions as
it was fires no event, but it always raises the generation.
"""

from __future__ import annotations

import time
from typing import Any

from cli.client.connection import Connection

# Seconds. Short enough to feel immediate after a save, long enough to cost nothing.
POLL_INTERVAL = 0.25


def wait_for_reload(connection: Connection, function_id: str) -> bool:
    """Return True once the function's worker is ready in another generation than now."""
    before = generation_of(connection, function_id)
    while True:
        time.sleep(POLL_INTERVAL)  # a reload that changes no function fires no event to wait for
        now = generation_of(connection, function_id)
        if now is not None and now != before:
            return True


def generation_of(connection: Connection, function_id: str) -> Any:
    """Return a value that changes when the function's worker reloads, None while no worker provides the function."""
    info = connection.function_info(function_id).get("result")
    if not info:
        return None
    rows = connection.call("engine::workers::list")["workers"]
    named = [row for row in rows if row.get("name") == info.get("worker_name")]
    return sorted((row.get("instance") or 0, row.get("generation") or 0, row.get("pid") or 0) for row in named)
