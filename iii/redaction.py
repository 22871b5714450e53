"""Takes secrets out of text and JSON values before anything shows, keeps or hands them over. Pure.

A secret is declared (the value of a variable or config key with a secret name), or it stands behind a secret name: in
text (`password=x`, a URL with a password) or as a field of a JSON value. `[REDACTED]` replaces it. Redacting twice
gives what redacting once gives, and JSON stays JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

REDACTED = "[REDACTED]"
# Shorter values turn up by chance in harmless text.
LEAST_SECRET = 6
# Declared secrets, the longest first: every line is searched for each.
MAX_SECRETS = 200
# Distinct secrets that one batch of records may give away; beyond that only their own fields are replaced.
MAX_BATCH_SECRETS = 64
# Nothing that is logged or traced nests deeper; what does is replaced whole.
MAX_DEPTH = 32

# The first letters of all words stand in front: they spare the words most positions of a text, and half of the time.
_WORDS = (
    r"(?=[acdelmpst])(?:passw|passphrase|pwd|secret|credential|authorization|cookie|dsn|token(?!s)"
    r"|(?:api|access|private|signing|encryption|auth|ssh|client|master|account|license)[-_. ]?key)"
)
_FIELD = re.compile(_WORDS, re.IGNORECASE)
_VARIABLE = re.compile(rf"{_WORDS}|(?:^|[-_.])key(?:$|[-_.])", re.IGNORECASE)
# `name=value`, `name: value`, `"name": "value"`, also where the text was cut off; not a value that is redacted already.
# Repetitions are bounded and possessive: a line of letters must cost no more than its length.
_ASSIGNED = re.compile(
    rf"""(?P<name>(?:{_WORDS})[\w.-]{{0,40}}+\\?["']?\s{{0,4}}+[:=]\s{{0,4}}+)"""
    r"""(?!(?P<mark>\\?["'])\[REDACTED\](?P=mark))"""
    r"""(?!\[REDACTED\](?:[\s,;&"'\])}@]|\Z))"""
    r"""(?P<value>(?P<quote>\\")(?:[^"\\]|\\[^"])*(?:\\")?|"(?:[^"\\]|\\.)*"?|'[^']*'?|"""
    r"""(?:(?:bearer|basic|digest)\s+)?(?:[^\s,;&"'\])}]++(?:(?<=\[REDACTED)\])?)++)""",
    re.IGNORECASE | re.DOTALL,
)
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^\s/:@]{0,256}:)[^\s/@]{1,256}@")
_NO_HINT = (False,) * 13


def is_secret_name(name: str) -> bool:
    """Whether a variable or config key of that name holds a secret."""
    return _VARIABLE.search(name) is not None


def is_secret_field(name: str) -> bool:
    """Whether a field of a record holds a secret. `key` alone is no secret there."""
    return _FIELD.search(name) is not None


def may_hold_secret(text: str) -> bool:
    """Whether any pattern could match. False is certain, and a hundred times cheaper than the patterns."""
    lowered = text.lower()
    return (
        *("passw" in lowered, "secret" in lowered, "token" in lowered, "key" in lowered, "authorization" in lowered),
        *("cookie" in lowered, "credential" in lowered, "pwd" in lowered, "dsn" in lowered, "passphrase" in lowered),
        *("://" in lowered, "bearer" in lowered, "basic " in lowered),
    ) != _NO_HINT


class Redactor:
    """Replaces declared secrets, and what stands behind a secret name. Calling it redacts a text by both rules."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # In the order of insertion; where JSON escapes a secret, its escaped form follows it.
        self.secrets: dict[str, None] = {}
        long_enough = {secret for secret in secrets if len(secret) >= LEAST_SECRET}
        for secret in sorted(long_enough, key=len, reverse=True)[:MAX_SECRETS]:
            self._add(secret)

    def _add(self, secret: str) -> None:
        self.secrets[secret] = None
        self.secrets[json.dumps(secret, ensure_ascii=False)[1:-1]] = None

    def __call__(self, text: str) -> str:
        """Return `text` without declared secrets, and without what stands behind a secret name."""
        return self.text(self.cut_out(text))

    def cut_out(self, text: str) -> str:
        """Return `text` without the secrets that this redactor knows."""
        for secret in self.secrets:
            if secret in text:
                return _redacted(text, self._replace_known, self._replace_known_in_value)
        return text

    def _replace_known(self, text: str) -> str:
        for secret in self.secrets:
            if secret in text:
                # Between the marks only: a secret like `D]abc` is not to be found in what stands for another secret.
                text = REDACTED.join(part.replace(secret, REDACTED) for part in text.split(REDACTED))
        return text

    def _replace_known_in_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._replace_known(value)
        if isinstance(value, dict):
            return {self._replace_known(name): self._replace_known_in_value(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._replace_known_in_value(inner) for inner in value]
        # The digits of a secret inside a longer number are there by chance.
        return REDACTED if str(value) in self.secrets else value

    def text(self, text: str) -> str:
        """Return `text` without what stands behind a secret name."""
        return _redacted(text, self._mask, self.value) if may_hold_secret(text) else text

    def _mask(self, text: str) -> str:
        return _URL_PASSWORD.sub(rf"\1{REDACTED}@", _ASSIGNED.sub(self._mask_assigned, text))

    def _mask_assigned(self, match: re.Match[str]) -> str:
        value = match["value"]
        quote = match["quote"] or (value[0] if value[0] in "\"'" else "")
        hidden = self._hide(value.strip("\"'\\"))
        return f"{match['name']}{quote}{hidden}{quote}"

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return a JSON value without secrets: fields with a secret name are replaced whole, text as in `text`."""
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
        """Return the value of a field, replaced if the field has a secret name. null, true and false are no secrets."""
        if value is None or isinstance(value, bool):
            return value
        return self._hide(value) if is_secret_field(name) else self.value(value, depth + 1)

    def _hide(self, _: Any) -> str:
        return REDACTED


class BatchRedactor(Redactor):
    """Redacts the records of one batch. It remembers every secret that it meets under a secret name.

    `cut_out` then takes these out of the finished records: an exception may have repeated them elsewhere.
    """

    def text(self, text: str) -> str:
        """Return `text` without secrets; JSON is looked through field by field."""
        if not may_hold_secret(text):
            return text
        if text[:1] in ("{", "["):
            try:
                parsed = _parse(text)
                redacted = self.value(parsed)
                return text if redacted == parsed else _dump(redacted, text)
            except (ValueError, RecursionError):
                pass
        return super().text(text)

    def _mask(self, text: str) -> str:
        # Only here: a line of the engine's log may well say "basic authentication".
        return _BEARER.sub(rf"\1 {REDACTED}", super()._mask(text))

    def _hide(self, value: Any) -> str:
        for text in _secrets_of(value):
            is_new = text not in self.secrets and text != REDACTED
            if is_new and len(text) >= LEAST_SECRET and len(self.secrets) < MAX_BATCH_SECRETS:
                self._add(text)
        return REDACTED


def _redacted(text: str, redact: Callable[[str], str], walk: Callable[[Any], Any]) -> str:
    """Return `redact(text)`; where that breaks JSON, the JSON of what `walk` makes of the value."""
    redacted = redact(text)
    if redacted == text or _is_json(redacted):
        return redacted
    try:
        value = _parse(text)
        redacted_value = walk(value)
        walked = text if redacted_value == value else _dump(redacted_value, text)
    except (ValueError, RecursionError):
        return redacted
    # What `redact` still finds in there, it would find the next time.
    again = redact(walked)
    return again if _is_json(again) else walked


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Made once: `json.loads` and `json.dumps` make a decoder or encoder for each call with options. `_parse` raises
# ValueError for a text that is no JSON, and RecursionError for one that nests too deep.
_parse = json.JSONDecoder(parse_constant=_refuse_constant).decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def _dump(value: Any, source: str) -> str:
    # Half of a surrogate pair can only be written as an escape.
    return _encode_ascii(value) if "\\ud" in source or "\\uD" in source else _encode(value)


def _is_json(text: str) -> bool:
    try:
        _parse(text)
    except (ValueError, RecursionError):
        return False
    return True


def _secrets_of(value: Any) -> Iterator[str]:
    """Yield the strings in the value of a secret field."""
    if isinstance(value, str):
        yield value
        # "Bearer abc": the second word alone is just as secret.
        scheme, _, credentials = value.partition(" ")
        if credentials and scheme.lower() in ("bearer", "basic", "digest"):
            yield credentials
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _secrets_of(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _secrets_of(inner)


def secrets_in(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield the secret values of an environment or a config table, at any depth."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _all_strings(value) if is_secret_name(name) else secrets_in(value)
            continue
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, Mapping):
                yield from secrets_in(item)
            elif isinstance(item, str) and is_secret_name(name):
                yield item


def _all_strings(fields: Mapping[str, Any]) -> Iterator[str]:
    for value in fields.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _all_strings(value)
