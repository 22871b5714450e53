"""Takes the project's secrets out of logs, errors and telemetry. Pure.

A secret is the value of an environment variable or a config key with a telling name. It is replaced wherever it
occurs, and so is any value that follows such a name in a line of text. Whole records are redacted further by the
observability worker.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

REDACTED = "[REDACTED]"
# Shorter values occur by chance in harmless text.
LEAST_SECRET = 6
# The longest ones are kept: every line is searched for each secret.
MAX_SECRETS = 200

_WORDS = r"passw|passphrase|pwd|secret|credential|authorization|cookie|dsn|token(?!s)|api[-_. ]?key|private[-_. ]?key"
# A text without any of these cannot match the patterns; searching for them costs a hundredth of the patterns.
_HINTS = ("passw", "pwd", "passphrase", "secret", "credential", "authorization", "cookie", "dsn", "token", "key", "://")
_NAME = re.compile(rf"{_WORDS}|(?:^|[-_.])key(?:$|[-_.])", re.IGNORECASE)
# `name=value`, `"name": "value"`. Bounded and without backtracking: the cost must be linear in the line's length.
_ASSIGNED = re.compile(
    rf"""((?:{_WORDS})[\w.-]{{0,40}}+\\?["']?\s{{0,4}}+[:=]\s{{0,4}}+)"""
    r"""(?!\\?["']?\[REDACTED\])"""
    r"""(?:(\\")(?:[^"\\]|\\[^"])*(?:\\")?|(")(?:[^"\\]|\\.)*"?|(')[^']*'?|"""
    r"""(?:(?:bearer|basic|digest)\s+)?[^\s,;&"'\])}]+)""",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(://[^\s/:@]{0,256}:)[^\s/@]{1,256}@")


class Redactor:
    """A callable that returns a text without secrets."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        longest_first = sorted({text for text in secrets if len(text) >= LEAST_SECRET}, key=len, reverse=True)
        self._secrets = longest_first[:MAX_SECRETS]

    def __call__(self, text: str) -> str:
        """Return `text` with every secret in it replaced."""
        text = self.values(text)
        lowered = text.lower()
        if not any(word in lowered for word in _HINTS):
            return text
        return _URL_PASSWORD.sub(rf"\1{REDACTED}@", _ASSIGNED.sub(_masked, text))

    def values(self, text: str) -> str:
        """Replace only the known secret values in `text`: JSON stays JSON."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, REDACTED)
        return text


def _masked(match: re.Match[str]) -> str:
    quote = match[2] or match[3] or match[4] or ""
    return f"{match[1]}{quote}{REDACTED}{quote}"


def redactor_of(tables: Iterable[Mapping[str, Any]]) -> Redactor:
    """Return a redactor for the secrets of environments and config tables."""
    return Redactor(secret for table in tables for secret in secrets_in(table))


def is_secret_name(name: str) -> bool:
    """Whether a variable or key with this name holds a secret."""
    return _NAME.search(name) is not None


def secrets_in(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield the secret values of an environment or a config table, at any depth."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _all_strings(value) if is_secret_name(name) else secrets_in(value)
        elif isinstance(value, list | tuple):
            yield from _in_list(name, value)
        elif isinstance(value, str) and is_secret_name(name):
            yield value


def _in_list(name: str, values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, Mapping):
            yield from secrets_in(value)
        elif isinstance(value, str) and is_secret_name(name):
            yield value


def _all_strings(fields: Mapping[str, Any]) -> Iterator[str]:
    for value in fields.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _all_strings(value)
