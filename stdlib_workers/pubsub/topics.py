"""Topics and patterns: words joined by dots; `*` stands for one word, `>` at the end for one or more. Pure."""

from __future__ import annotations

from collections.abc import Callable


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a topic is meant by `pattern`; one without wildcards means only itself."""
    words = pattern.split(".")
    if "*" not in words and words[-1] != ">":
        return pattern.__eq__
    return lambda topic: _fits(words, topic.split("."))


def _fits(pattern: list[str], topic: list[str]) -> bool:
    if pattern[-1] == ">":
        head = pattern[:-1]
        return len(topic) > len(head) and _fits_words(head, topic[: len(head)])
    return len(topic) == len(pattern) and _fits_words(pattern, topic)


def _fits_words(pattern: list[str], topic: list[str]) -> bool:
    return all(word in ("*", part) for word, part in zip(pattern, topic, strict=True))
