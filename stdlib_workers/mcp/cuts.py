"""Texts of bounded size: what is too long is cut between two letters, and says so. Pure."""

from __future__ import annotations

from typing import Any

from stdlib_workers.values.payload import encode


def cut(text: str, most: int) -> str:
    """Return the text if it has at most `most` bytes of UTF-8, else its beginning and a word about the rest."""
    data = text.encode("utf-8", "replace")
    if len(data) <= most:
        return data.decode()
    kept = data[:most].decode("utf-8", "ignore")
    return f"{kept}\n[cut: {len(data)} bytes, the limit is {most}]"


def text_of(value: Any) -> str:
    """Return a value as JSON, a string as it is."""
    return value if isinstance(value, str) else encode(value).decode()
