"""Makes the text of workers safe to show on a terminal. Pure.

A worker's colors (SGR sequences) may stay, other escape sequences are dropped, and control and direction characters are
shown as escapes (`\\x07`).
"""

from __future__ import annotations

import re

_SGR = re.compile(r"(\x1b\[[0-9;:]*m)")
# CSI other than SGR, OSC (titles, links) with either end, and two-character sequences.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_=>0-9a-z])")
# C0 except tab, DEL, C1, and the characters that reorder text or hide in it.
_UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)
# Characters of one line that are shown; the log file has all of them.
SHOWN = 8 * 1024


def sanitize(text: str, *, color: bool = False) -> str:
    """Return `text` as one harmless line. With `color`, colors stay and end with the line."""
    # A progress bar rewrites its line after a carriage return: only the last version is shown.
    text = text.rstrip("\r").rsplit("\r", 1)[-1]
    if not color:
        return _plain(_SGR.sub("", text))
    pieces = _SGR.split(text)
    pieces[::2] = map(_plain, pieces[::2])  # the others are colors
    return "".join(pieces) + ("\x1b[0m" if len(pieces) > 1 else "")


def shorten(text: str) -> str:
    """Return at most SHOWN characters, and the number of those left out."""
    more = len(text) - SHOWN
    return f"{text[:SHOWN]} ... {more} characters more" if more > 0 else text


def _plain(text: str) -> str:
    return _UNSAFE.sub(_escape, _SEQUENCE.sub("", text))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
