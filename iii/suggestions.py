"""The known names nearest to a misspelled one: the one place that compares names by likeness.

Public: standard workers may import it. Which names count, and how the answer is worded, is each caller's own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


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
