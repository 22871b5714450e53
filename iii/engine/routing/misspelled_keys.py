"""Keys of a payload that are nearly those of its schema. Pure.

A schema that admits further keys can still say `"x-refuse-misspelled": true`: then a key that looks like one which the
payload lacks is refused, where it would be dropped without a word. Keys that look like none are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from iii.suggestions import nearest_names

REFUSE_MISSPELLED = "x-refuse-misspelled"
# Unknown keys that are looked at, and characters of each: comparing takes time, and payloads come from anywhere.
_CONSIDERED, _LONGEST = 16, 64
# Two letters of a short name that changed places are near.
_LIKENESS = 0.65


def misspelled_key(schema: Mapping[str, Any], payload: Any) -> dict[str, object] | None:
    """Return the mismatch of the first misspelled key, as `explain` does; None without one."""
    known = schema.get("properties", {})
    if not isinstance(payload, dict) or payload.keys() <= known.keys():
        return None
    absent = [name for name in known if name not in payload]
    unknown = (key for key in payload if key not in known and not key.startswith("_") and len(key) <= _LONGEST)
    for key in islice(unknown, _CONSIDERED):
        for near in nearest_names(key.lower(), absent, cutoff=_LIKENESS):
            text = f"unknown key `{key}`; did you mean `{near}`?"
            return {"message": text, "path": key, "expected": near, "got": key}
    return None
