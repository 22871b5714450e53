"""Find out what is wrong with a JSON line, and at which byte.

The slow, exact half of the codec: a parser has refused the line, or a cheap check found it suspicious. Iterative,
so that the answer does not depend on how deep the Python stack already is. Values are never built.
"""

from __future__ import annotations

import re

from iii.worker.codec.limits import HEAD, MAX_DEPTH, MAX_INTEGER, MIN_INTEGER

# No integer of 64 bits has more digits, sign included.
MAX_DIGITS = 20

_TOKEN = re.compile(
    r'[ \t\r\n]*(?:(?P<string>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")'
    r"|(?P<number>-?(?:0|[1-9][0-9]*)(?P<fraction>(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?![0-9A-Za-z_.+-]))"
    r"|(?P<word>(?:true|false|null)(?![0-9A-Za-z_]))"
    r"|(?P<mark>[{}\[\]:,]))"
)
# A run of 19 digits that is a number of its own, and not an id in a string or the tail of a fraction.
_LONG_INTEGER = re.compile(rb"(?:^|[:\[,\s])-?[0-9]{19}")
_INVOCATION_ID = re.compile(rb'"invocation_id"\s*:\s*"([^"\\]{1,128})"')
_BLANK = re.compile(r"[ \t\r\n]*")
_SURROGATE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)")

# What may come next: a value, a key, and so on; a closing bracket only where a container may end.
_VALUE, _FIRST_VALUE, _KEY, _FIRST_KEY, _COLON, _AFTER, _END = range(7)

Fault = tuple[str, int]


def find_fault(line: bytes) -> Fault | None:
    """Return (what is wrong, byte offset), or None for a line this project accepts.

    Refused beside plain syntax errors: invalid UTF-8, a byte order mark, NaN and Infinity, numbers that no
    double or 64-bit integer holds, duplicate keys, lone surrogates, nesting beyond `MAX_DEPTH`.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return "invalid UTF-8", error.start
    fault = _Scan(text).run()
    return fault and (fault[0], len(text[: fault[1]].encode("utf-8")))


def has_long_integer(data: bytes) -> bool:
    """Tell whether an integer with so many digits that it may exceed 64 bits could be in `data`."""
    return _LONG_INTEGER.search(data) is not None


def read_invocation_id(line: bytes) -> str | None:
    """Return the invocation id in the first 4 KiB of a line that cannot be parsed."""
    match = _INVOCATION_ID.search(line[:HEAD])
    return match.group(1).decode("utf-8", "replace") if match else None


class _Scan:
    """One pass over a text: a state, and the open containers with the keys each has seen."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._open: list[set[str] | None] = []
        self._state = _VALUE

    def run(self) -> Fault | None:
        at = 0
        while self._state != _END:
            match = _TOKEN.match(self._text, at)
            if match is None or match.lastgroup is None:
                return self._unreadable(at)
            kind = "number" if match.lastgroup == "fraction" else match.lastgroup
            start = match.start(kind)
            message = self._accept(kind, match.group(kind), match.group("fraction"))
            if message:
                return message, start
            at = match.end()
        rest = self._skip_blank(at)
        return None if rest == len(self._text) else ("extra characters after the value", rest)

    def _skip_blank(self, at: int) -> int:
        blank = _BLANK.match(self._text, at)
        return blank.end() if blank else at

    def _unreadable(self, at: int) -> Fault:
        at = self._skip_blank(at)
        if at == len(self._text):
            return "the text ends early", at
        return f"unexpected {self._text[at]!r}", at

    def _accept(self, kind: str, token: str, fraction: str | None) -> str | None:
        if kind == "mark":
            return self._accept_mark(token)
        if kind == "string":
            return _string_fault(token) or self._accept_string(token)
        if self._state not in (_VALUE, _FIRST_VALUE):
            return f"unexpected {token[:20]}"
        self._end_value()
        return _number_fault(token, fraction) if kind == "number" else None

    def _accept_string(self, token: str) -> str | None:
        if self._state in (_KEY, _FIRST_KEY):
            self._state = _COLON
            return self._accept_key(token)
        if self._state not in (_VALUE, _FIRST_VALUE):
            return "unexpected string"
        self._end_value()
        return None

    def _accept_key(self, token: str) -> str | None:
        key = _unescaped(token)
        seen = self._open[-1]
        if seen is None or key in seen:
            return f"duplicate key {key!r}"
        seen.add(key)
        return None

    def _accept_mark(self, mark: str) -> str | None:
        if mark in "{[" and self._state in (_VALUE, _FIRST_VALUE):
            return self._enter(mark)
        if mark in "}]" and self._may_close(mark):
            self._open.pop()
            self._end_value()
            return None
        if mark == ":" and self._state == _COLON:
            self._state = _VALUE
            return None
        if mark == "," and self._state == _AFTER:
            self._state = _VALUE if self._open[-1] is None else _KEY
            return None
        return f"unexpected {mark!r}"

    def _enter(self, mark: str) -> str | None:
        if len(self._open) > MAX_DEPTH:
            return f"nested deeper than {MAX_DEPTH}"
        self._open.append(set() if mark == "{" else None)
        self._state = _FIRST_KEY if mark == "{" else _FIRST_VALUE
        return None

    def _may_close(self, mark: str) -> bool:
        if not self._open:
            return False
        if mark == "}":
            return self._open[-1] is not None and self._state in (_FIRST_KEY, _AFTER)
        return self._open[-1] is None and self._state in (_FIRST_VALUE, _AFTER)

    def _end_value(self) -> None:
        self._state = _AFTER if self._open else _END


def _number_fault(token: str, fraction: str | None) -> str | None:
    if fraction:
        return "number out of range" if float(token) in (float("inf"), float("-inf")) else None
    if len(token) > MAX_DIGITS or not MIN_INTEGER <= int(token) <= MAX_INTEGER:
        return "integer beyond 64 bits"
    return None


def _string_fault(token: str) -> str | None:
    if "\\u" not in token and "\\U" not in token:
        return None
    high = False
    end = 0
    for match in _SURROGATE.finditer(token):
        code = int(match.group(1), 16) if match.group(1) else 0
        paired = high and match.start() == end and 0xDC00 <= code <= 0xDFFF
        if (high and not paired) or (0xDC00 <= code <= 0xDFFF and not paired):
            return "lone surrogate"
        high = 0xD800 <= code <= 0xDBFF
        end = match.end()
    return "lone surrogate" if high else None


def _unescaped(token: str) -> str:
    if "\\" not in token:
        return token[1:-1]
    import json  # escaped keys are rare, and this module must cost nothing at start

    return str(json.loads(token))
