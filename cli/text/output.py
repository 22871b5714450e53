"""What may reach a terminal: results as JSON that is safe to show, text with its control characters escaped.

Part of the short path: imports only sys.
"""

from __future__ import annotations

import sys

from cli.text.json import encode

# Up to this width a result stays on one line.
ONE_LINE = 80

_CONTROLS = [*range(0x20), 0x7F, *range(0x80, 0xA0)]
# They reorder what a reader sees without changing what is there, or break the line for some terminals.
_BIDI = [0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
# As the engine's screen does: they hide what is there.
_HIDDEN = [0x200B, *range(0x2060, 0x2066), 0xFEFF, *range(0xFFF9, 0xFFFC)]
_ESCAPES = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in (*_CONTROLS, *_BIDI, *_HIDDEN)}
_LINES = {**_ESCAPES, 0x09: "\t", 0x0A: "\n"}
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in (*_CONTROLS[0x20:], *_BIDI, *_HIDDEN)}


def shown(text: str) -> str:
    """Return `text` on one line, with control and bidi characters written as escapes."""
    return text.translate(_ESCAPES)


def shown_json(value: object, *, raw: bool = False) -> str:
    """Return `value` as JSON for people: one line when it is short, else indented by 2. `raw`: one compact line.

    Escapes only ever stand inside strings, so the text is the same JSON value for a program.
    """
    text = encode(value) if raw else encode(value, ", ", ": ")
    if not raw and len(text) > ONE_LINE:
        import json  # only a long result pays for it

        text = json.dumps(value, ensure_ascii=False, indent=2)
    text = text.translate(_JSON_ESCAPES)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return "".join(char if char < "\x7f" else _escaped(char) for char in text)
    return text


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def count(number: int, noun: str) -> str:
    """Return `1 worker`, `2 workers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def write(text: str) -> None:
    """Write one line (or more) of result to stdout. What a terminal would act on is written as escapes."""
    write_clean(_harmless(text))


def write_error(text: str) -> None:
    """Write anything that is no result to stderr, as `write` does."""
    _put(sys.stderr, _harmless(text))


def write_clean(text: str) -> None:
    """Write what is harmless already, and may have colors of ours, to stdout."""
    _put(sys.stdout, text)


def _harmless(text: str) -> str:
    # The test takes no time; most texts pass it.
    return text if text.replace("\n", "").isprintable() and text.isascii() else text.translate(_LINES)


if False:  # names for the type checker only: importing typing would cost more than this whole module
    from typing import TextIO


def _put(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
