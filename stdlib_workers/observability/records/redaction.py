"""Takes secrets out of telemetry before anything keeps, shows or exports it. Pure.

Three rules: the value of a sensitive name is replaced whole, at any depth; text loses what follows such a name, a
bearer or a password in a URL; and a value that was found under a sensitive name is then cut out of every other text
of the same batch, where an exception may have repeated it. Called for every record that comes in, from wherever.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

REDACTED = "[REDACTED]"
# Shorter values would be found by chance in harmless text.
LEAST_SECRET = 6
# Distinct secrets of one batch that are looked for elsewhere; beyond that only their own fields are replaced.
MAX_SECRETS = 64
# No rule applies.
_HARMLESS = (False,) * 13
# Nothing that is telemetry nests deeper; what does is replaced whole.
MAX_DEPTH = 32

_NAME = (
    r"passw|passphrase|pwd|secret|credential|authorization|cookie|dsn|token(?!s)"
    r"|(?:api|access|private|signing|encryption|auth|ssh|client|master|account|license)[-_. ]?key"
)
_SENSITIVE = re.compile(_NAME, re.IGNORECASE)
# `name=value`, `name: value`, `"name": "value"`, also where the text was cut off. Repetitions before a mark are
# bounded: a long word must not cost its length squared.
_ASSIGNMENT = re.compile(
    rf"""(?P<name>(?:{_NAME})[\w.-]{{0,40}}\\?["']?\s{{0,4}}[:=]\s{{0,4}})"""
    r"""(?P<value>\\?"(?:[^"\\]|\\[^"])*\\?"?|'[^']*'?|(?:(?:bearer|basic|digest)\s+)?[^\s,;&"'\]\)}]+)""",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^\s/:@]{0,256}:)[^\s/@]{1,256}@")


def is_sensitive(name: str) -> bool:
    """Tell whether a field of that name holds a secret."""
    return _SENSITIVE.search(name) is not None


def may_hold_secret(text: str) -> bool:
    """Tell whether any rule could find something; False is certain, and cheap: nearly all telemetry is harmless."""
    lowered = text.lower()
    return (
        *("passw" in lowered, "secret" in lowered, "token" in lowered, "key" in lowered, "authorization" in lowered),
        *("cookie" in lowered, "credential" in lowered, "pwd" in lowered, "dsn" in lowered, "passphrase" in lowered),
        *("://" in lowered, "bearer" in lowered, "basic " in lowered),
    ) != _HARMLESS


class Redaction:
    """One batch: what was found secret in it so far."""

    def __init__(self) -> None:
        self.secrets: dict[str, None] = {}

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return a JSON value without secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            if depth >= MAX_DEPTH:
                return REDACTED
            return {name: self.field(name, inner, depth) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return REDACTED if depth >= MAX_DEPTH else [self._item(inner, depth) for inner in value]
        return value

    def _item(self, value: Any, depth: int) -> Any:
        # `[["password", "x"]]`: how spans write their attributes.
        if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str):
            return [value[0], self.field(value[0], value[1], depth + 1)]
        return self.value(value, depth + 1)

    def field(self, name: str, value: Any, depth: int = 0) -> Any:
        """Return the value of a field of that name, replaced when the name is sensitive."""
        if value is None or isinstance(value, bool):
            return value
        if not is_sensitive(name):
            return self.value(value, depth + 1)
        self._learn(value)
        return REDACTED

    def text(self, text: str) -> str:
        """Return text without secrets; JSON is looked through field by field and stays JSON."""
        if not may_hold_secret(text):
            return text
        if text[:1] in ("{", "["):
            try:
                found = self.value(msgspec.json.decode(text))
                return msgspec.json.encode(found).decode()
            except (msgspec.DecodeError, RecursionError):
                pass
        return self._plain(text)

    def _plain(self, text: str) -> str:
        text = _URL_PASSWORD.sub(rf"\1{REDACTED}@", text)
        text = _ASSIGNMENT.sub(self._assigned, text)
        return _BEARER.sub(rf"\1 {REDACTED}", text)

    def _assigned(self, match: re.Match[str]) -> str:
        value = match["value"]
        self._learn(value.strip("\"'\\"))
        quote = next((mark for mark in ('\\"', '"', "'") if value.startswith(mark)), "")
        return f"{match['name']}{quote}{REDACTED}{quote}"

    def _learn(self, value: Any) -> None:
        for text in _strings(value):
            if len(text) >= LEAST_SECRET and text != REDACTED and len(self.secrets) < MAX_SECRETS:
                self.secrets[text] = None

    def scrub(self, text: str) -> str:
        """Return the text of a finished record without the secrets of the whole batch."""
        for secret in self.secrets:
            if secret in text:
                text = text.replace(secret, REDACTED)
            escaped = msgspec.json.encode(secret).decode()[1:-1]
            if escaped != secret and escaped in text:
                text = text.replace(escaped, REDACTED)
        return text


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
        # "Bearer abc": the second word alone is just as secret.
        scheme, _, rest = value.partition(" ")
        if rest and scheme.lower() in ("bearer", "basic", "digest"):
            yield rest
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner)
