"""What is wrong with a JSON line, and at which byte.

The slow, exact half of the codec, for lines that a parser has refused or a cheap check found suspicious. It builds no
values, and is iterative, so that its answer does not depend on how deep the Python stack already is.
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
    r"|(?P<punctuation>[{}\[\]:,]))"
)
# As many digits as an integer beyond 64 bits has at least, in a text whose digits are all 0.
_LONG_RUN = re.compile(b"0" * (MAX_DIGITS - 1) + b"0*")
_BEFORE_VALUE = b":[, \t\r\n"
_INVOCATION_ID = re.compile(rb'"invocation_id"\s*:\s*"([^"\\]{1,128})"')
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)")

# What may come next. A container may end where its first value or key may stand, and after a value.
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


def has_long_integer(digits: bytes) -> bool:
    """Tell whether an integer that may exceed 64 bits could be in a text, given with all of its digits as 0.

    No id in a string and no tail of a fraction is one, nor a time in nanoseconds: 19 digits without a sign always fit.
    """
    for run in _LONG_RUN.finditer(digits):
        start, end = run.span()
        is_negative = digits[start - 1 : start] == b"-"
        before = digits[start - 1 - is_negative : start - is_negative]
        if (is_negative or end - start >= MAX_DIGITS) and (not before or before in _BEFORE_VALUE):
            return True
    return False


def read_invocation_id(line: bytes) -> str | None:
    """Return the invocation id in the first 4 KiB of a line that cannot be parsed."""
    match = _INVOCATION_ID.search(line[:HEAD])
    return match.group(1).decode("utf-8", "replace") if match else None


class _Scan:
    """One pass over a text: what may come next, and the open containers with the keys that each object has so far."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._open: list[set[str] | None] = []  # None is an array
        self._state = _VALUE

    def run(self) -> Fault | None:
        """Return what is wrong and at which character, None if nothing is."""
        at = 0
        while self._state != _END:
            match = _TOKEN.match(self._text, at)
            if match is None or match.lastgroup is None:
                at = self._skip_blank(at)
                is_end = at == len(self._text)
                return "the text ends early" if is_end else f"unexpected {self._text[at]!r}", at
            token_type = "number" if match.lastgroup == "fraction" else match.lastgroup
            message = self._accept(token_type, match.group(token_type), match.group("fraction"))
            if message:
                return message, match.start(token_type)
            at = match.end()
        at = self._skip_blank(at)
        return None if at == len(self._text) else ("extra characters after the value", at)

    def _skip_blank(self, at: int) -> int:
        return len(self._text) - len(self._text[at:].lstrip(" \t\r\n"))

    def _accept(self, token_type: str, token: str, fraction: str | None) -> str | None:
        if token_type == "punctuation":
            return self._accept_punctuation(token)
        if token_type == "string":
            fault = _surrogate_fault(token)
            if fault or self._state in (_KEY, _FIRST_KEY):
                return fault or self._accept_key(token)
        if self._state not in (_VALUE, _FIRST_VALUE):
            return "unexpected string" if token_type == "string" else f"unexpected {token[:20]}"
        self._state = _AFTER if self._open else _END
        if fraction:
            return "number out of range" if float(token) in (float("inf"), float("-inf")) else None
        if token_type == "number" and (len(token) > MAX_DIGITS or not MIN_INTEGER <= int(token) <= MAX_INTEGER):
            return "integer beyond 64 bits"
        return None

    def _accept_key(self, token: str) -> str | None:
        key = token[1:-1]
        if "\\" in token:
            import json  # escaped keys are rare, and this module must cost nothing at start

            key = json.loads(token)
        self._state = _COLON
        keys = self._open[-1]
        if keys is None or key in keys:
            return f"duplicate key {key!r}"
        keys.add(key)
        return None

    def _accept_punctuation(self, sign: str) -> str | None:
        first = _FIRST_KEY if sign in "{}" else _FIRST_VALUE
        if sign in "{[" and self._state in (_VALUE, _FIRST_VALUE):
            if len(self._open) > MAX_DEPTH:
                return f"nested deeper than {MAX_DEPTH}"
            self._open.append(set() if sign == "{" else None)
            self._state = first
        elif sign in "}]" and self._state in (first, _AFTER) and (self._open[-1] is None) is (sign == "]"):
            self._open.pop()
            self._state = _AFTER if self._open else _END
        elif sign == ":" and self._state == _COLON:
            self._state = _VALUE
        elif sign == "," and self._state == _AFTER:
            self._state = _VALUE if self._open[-1] is None else _KEY
        else:
            return f"unexpected {sign!r}"
        return None


def _surrogate_fault(token: str) -> str | None:
    """Name the fault of a string whose escapes hold half a surrogate pair: a high one, and at once a low one."""
    if "\\u" not in token:
        return None
    awaits_low = False
    end = 0
    for match in _ESCAPE.finditer(token):
        code = int(match.group(1), 16) if match.group(1) else 0
        is_low = 0xDC00 <= code <= 0xDFFF
        is_paired = awaits_low and is_low and match.start() == end
        if (awaits_low or is_low) and not is_paired:
            return "lone surrogate"
        awaits_low = 0xD800 <= code <= 0xDBFF
        end = match.end()
    return "lone surrogate" if awaits_low else None
