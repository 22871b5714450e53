"""Topics and patterns: words joined by dots; `*` stands for one word, `>` at the end for one or more. Pure."""

from __future__ import annotations

from collections.abc import Callable


def topic_matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a topic matches `pattern`; without wildcards, only an equal topic does."""
    words = pattern.split(".")
    if "*" not in words and words[-1] != ">":
        return pattern.__eq__
    is_open = words[-1] == ">"
    head = words[:-1] if is_open else words

    def matches(topic: str) -> bool:
        parts = topic.split(".")
        has_length = len(parts) > len(head) if is_open else len(parts) == len(head)
        return has_length and all(word in ("*", part) for word, part in zip(head, parts, strict=False))

    return matches
