"""Durations as people write them: a number and a unit, like `100ms`, `1.5m` or `7d`.

Public: standard workers may import it. Which units, ranges and combinations are allowed is each caller's own, as are
the words of its errors.
"""

from __future__ import annotations

import re

# One duration, for callers that accept several in a row, or something else as well.
PATTERN = r"\d+(?:\.\d+)?(?:ms|s|m|h|d)"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(text: str) -> float:
    """Return the seconds of a number with one of the units ms, s, m, h and d. ValueError for anything else."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration like 100ms, 5s, 1.5m, 2h or 7d")
    return float(match[1]) * _SECONDS[match[2]]
