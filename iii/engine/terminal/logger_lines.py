"""The lines of `Logger` and of Python's `logging`, for people: the level, and what was said. Pure.

A record of `Logger` is a JSON object on one line (docs/observability.md); `--json` shows it as it is.
"""

from __future__ import annotations

import json

LEVELS = ("debug", "info", "warn", "error")


def readable(text: str) -> tuple[str, str]:
    """Return the level and the words of a record of `Logger`; "" and the text itself for any other line."""
    if not text.startswith('{"time":'):
        return "", text
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return "", text
    level, message = record.get("level"), record.get("message")
    if level not in LEVELS or not isinstance(message, str):
        return "", text
    return level, message + _data(record.get("data"))


def _data(data: object) -> str:
    if isinstance(data, dict):
        return "".join(f"  {name}={_value(value)}" for name, value in data.items())
    return "" if data is None else f"  {_value(data)}"


def _value(value: object) -> str:
    if isinstance(value, str) and value and " " not in value:
        return value
    return json.dumps(value, ensure_ascii=False)
