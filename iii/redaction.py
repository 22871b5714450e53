"""Takes secrets out of text and JSON values before anything shows, keeps or hands them over. Pure.

A secret is declared (the value of a variable or config key with a secret name), or it stands behind a secret name: in
text (`password=x`, a URL with a password) or as a field of a JSON value. `[REDACTED]` replaces it. Redacting twice
gives what redacting once gives, and JSON stays JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
# A value in quotes, also where the text was cut off; brackets with what is in them, three deep.
_QUOTED = r"""(?P<quote>\\")(?:[^"\\]|\\[^"])*+(?:\\")?|"(?:[^"\\]|\\.)*+"?|'(?:[^'\\]|\\.)*+'?"""
_INNER = r"""[^\[\](){}"']|"(?:[^"\\]|\\.)*+"?|'(?:[^'\\]|\\.)*+'?"""
_BRACKETS = ""
for _ in range(3):
    _BRACKETS = rf"[\[({{](?:{_INNER}{_BRACKETS and '|' + _BRACKETS})*+[\])}}]?"
# Not a value that is redacted already.
_NEW = r"""(?!(?P<mark>\\?["'])\[REDACTED\](?P=mark))(?!\[REDACTED\](?:[\s,;&"'\])}@<]|\Z))"""
_NAME = rf"(?:{_WORDS})[\w.-]{{0,40}}+"
# Each has the groups `name`, which stays, and `value`. Repetitions are bounded or possessive: a line of letters must
# cost no more than its length.
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        # A private key.
        r"(?P<name>-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?!\[REDACTED\]))"
        r"(?P<value>.+?)(?=-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
        # Headers, to the end of the line or of their quotes: `Cookie: a=1; b=2`, `Authorization: Digest a="b", c="d"`.
        r"""(?P<open>["'])?(?P<name>(?:proxy-|set-)?(?:authorization|cookie)\s*+:\s*+)"""
        r"""(?!["'\\])(?!\[REDACTED\](?:[\s"',\])}]|\Z))(?P<value>(?:bearer|basic|token|negotiate|apikey)\s++[^\s"']++"""
        r"""|(?(open)(?:(?!(?P=open))[^\r\n])++|[^\r\n]++))""",
        # Arguments: `--password x`, `'--api-key', 'x'`.
        rf"""(?P<name>(?<![\w\]-])--?[\w-]{{0,40}}?{_NAME}(?:\\?["'],\s*+|\s++))(?![-=:]){_NEW}"""
        rf"""(?P<value>{_QUOTED}|[^\s,;"'\])}}]++)""",
        # XML: `<db:password>x</db:password>`, also as CDATA.
        rf"""(?P<name><(?:[\w.-]{{0,40}}:)?[\w.-]{{0,40}}?{_NAME}(?:\s[^<>]{{0,200}}+)?(?<!/)>)(?!\s*+(?:<(?!!)|\Z)){_NEW}"""
        r"""(?P<value>(?:<!\[CDATA\[(?:(?!\]\]>).)*+(?:\]\]>)?|[^<])++)(?=</|\Z)""",
        # Pairs as Python shows them: `(b'cookie', b'a=1; b=2')`.
        rf"""(?P<name>\(b?["'][\w.-]{{0,40}}?{_NAME}["'],\s*+b?+){_NEW}(?P<value>{_QUOTED})""",
        # `name=value`, `name: value`, `"name": "value"`, `name => value`, `name%3Dvalue`.
        rf"""(?P<name>{_NAME}(?:\\?["']?\s*+(?>=>|:=|==?|:)\s*+|%(?:25)?(?:22%(?:25)?)?3[ad](?:%(?:25)?2[02])?)"""
        rf"""(?:[bu](?=["']))?+){_NEW}(?P<value>{_QUOTED}"""
        rf"""|(?:(?:bearer|basic|digest)\s+)?(?:{_BRACKETS}|[^\s,;&"'\])}}\[({{]++)++)""",
        # Credentials alone: an authentication scheme with what looks like one, and the password of a URL.
        r"(?P<name>(?<![\w\]])(?:bearer|basic)\s++)(?=(?-i:[^\s]{0,80}?(?:[\d=]|[a-z][A-Z])))(?P<value>[\w.~+/=-]{8,}+)",
        r"(?P<name>://[^\s/:@]{0,256}:)(?P<value>[^\s/@]{1,256}+(?=@))",
    )
)
_FLAG = re.compile(rf"--?[\w-]*?{_NAME}", re.IGNORECASE)
# Redactions of one text: one may uncover another.
MAX_PASSES = 6
_NO_HINT = (False,) * 12


def is_secret_name(name: str) -> bool:
    """Whether a variable or config key of that name holds a secret."""
    return _VARIABLE.search(name) is not None


def is_secret_field(name: str) -> bool:
    """Whether a field of a record holds a secret. `key` alone is no secret there."""
    return _FIELD.search(name) is not None


def may_hold_secret(text: str) -> bool:
    """Whether any pattern could match. False is certain, and a hundred times cheaper than the patterns."""
    lowered = text.lower()
    return "://" in lowered or _may_name_secret(lowered)


def _may_name_secret(lowered: str) -> bool:
    return (
        *("passw" in lowered, "secret" in lowered, "token" in lowered, "key" in lowered, "authorization" in lowered),
        *("cookie" in lowered, "credential" in lowered, "pwd" in lowered, "dsn" in lowered, "passphrase" in lowered),
        *("bearer" in lowered, "basic" in lowered),
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
        # Most lines with a hint are lines with a URL.
        patterns = _PATTERNS if _may_name_secret(text.lower()) else _PATTERNS[-1:]
        for _ in range(MAX_PASSES):
            before = text
            for pattern in patterns:
                text = pattern.sub(self._mask_value, text)
            if text == before:
                break
        return text

    def _mask_value(self, match: re.Match[str]) -> str:
        groups = match.groupdict()
        value = match["value"]
        quote = groups.get("quote") or (value[0] if value[0] in "\"'" else "")
        hidden = self._hide(value.strip("\"'\\"))
        return f"{groups.get('open') or ''}{match['name']}{quote}{hidden}{quote}"

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return a JSON value without secrets: fields with a secret name are replaced whole, text as in `text`."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            if depth >= MAX_DEPTH:
                return REDACTED
            return {name: self.field(name, inner, depth) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return REDACTED if depth >= MAX_DEPTH else self._items(value, depth)
        return value

    def _items(self, values: Sequence[Any], depth: int) -> list[Any]:
        redacted: list[Any] = []
        flag = None
        for item in values:
            # `["--password", "x"]`: the arguments of a program.
            if flag is not None and isinstance(item, str) and not item.startswith("-"):
                redacted.append(self._hide(item))
            else:
                redacted.append(self._item(item, depth))
            flag = _FLAG.fullmatch(item) if isinstance(item, str) and item[:1] == "-" else None
        return redacted

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

    def cut_out(self, text: str) -> str:
        """Return `text` without the secrets that were met. What stands beside one may then turn out to be one too."""
        for _ in range(MAX_PASSES):
            cut = super().cut_out(text)
            if cut == text:
                break
            text = self.text(cut)
        return text

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
    """Yield the strings and numbers in the value of a secret field."""
    if isinstance(value, str):
        yield value
        # "Bearer abc": the second word alone is just as secret.
        scheme, *credentials = value.split(None, 1)[:2] or ("",)
        if scheme.lower() in ("bearer", "basic", "digest"):
            yield from credentials
    elif isinstance(value, (Mapping, list, tuple)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _secrets_of(inner)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def secrets_in(value: Any) -> Iterator[str]:
    """Yield the secrets of an environment or a config, at any depth: what has a secret name, passwords of URLs."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _secrets_of(inner) if is_secret_name(name) else secrets_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from secrets_in(inner)
    elif isinstance(value, str) and "://" in value:
        yield from (match["value"] for match in _PATTERNS[-1].finditer(value))
