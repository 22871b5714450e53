"""The known names nearest to a misspelled one: the one place that compares names by likeness.

Public: standard workers may import it. Which names count, and how the answer is worded, is each caller's own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


# The functions of the standard workers by how their ids begin; the longest that fits counts.
STANDARD_FUNCTIONS = {
    "configuration::": "configuration",
    "state::": "state",
    "stream::": "stream",
    "publish": "pubsub",
    "cron::": "cron",
    "flow::": "flow",
    "action::flow": "flow",
    "http::": "http",
    "http_functions::": "http_functions",
    "bridge::": "bridge",
    "console::": "console",
    "mcp::": "mcp",
    "queue::": "queue",
    "action::enqueue": "queue",
    "iii::queue::": "queue",
    "iii::durable::": "queue",
    "engine::queue::": "queue",
    "engine::traces::": "observability",
    "engine::logs::": "observability",
    "engine::metrics::": "observability",
    "engine::rollups::": "observability",
    "engine::alerts::": "observability",
    "engine::sampling::": "observability",
    "engine::health::": "observability",
}


def standard_worker_of(function_id: str) -> str | None:
    """Return the standard worker that a function of this id belongs to, None for any other function."""
    fitting = [
        begin
        for begin in STANDARD_FUNCTIONS
        if function_id == begin or (begin[-1] == ":" and function_id.startswith(begin))
    ]
    return STANDARD_FUNCTIONS[max(fitting, key=len)] if fitting else None


def nearest_names(name: str, known: Iterable[str], *, count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return up to `count` of the `known` names that look like `name`, the nearest first.

    `cutoff` is the least likeness that counts, from 0 (anything) to 1 (the same text).
    """
    from difflib import get_close_matches  # only a mistake pays for it

    return get_close_matches(name, list(known), n=count, cutoff=cutoff)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean `NAME`?", or an empty string if no known name is near. Ignores the case of `name`."""
    names = nearest_names(name.lower(), known)
    return f"did you mean `{names[0]}`?" if names else ""
