"""Text of what user code made, and what the SDK itself has to say.

Any `__str__` may raise, or return megabytes. Neither may cost the thread that only wanted to tell of a value: so what
is told is cut, and a text that cannot be had is replaced by one that says so.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

# Characters of an exception's message that travel; what is longer is a dump, and belongs into a log or a channel.
MAX_TEXT = 64 * 1024


def text_of(value: object) -> str:
    """Return `str(value)`, cut in its middle to `MAX_TEXT` characters; a text about the failure when it has none."""
    try:
        text = str(value)
        # `str` may return an instance of a class below it, whose methods are user code again.
        return cut(str.__str__(text))
    except BaseException as error:  # noqa: BLE001 - the boundary to a user's `__str__`
        return f"<{type(value).__name__} whose text cannot be had: {type(error).__name__}>"


def cut(text: str) -> str:
    """Return a text of at most `MAX_TEXT` characters, with its beginning and its end."""
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}... ({len(text) - 2 * half} characters left out) ...{text[-half:]}"


def warn(text: str) -> None:
    """Write a line to stderr, wherever user code has left that."""
    line = f"iii: {text}\n"
    try:
        sys.stderr.write(line)
    except BaseException:  # noqa: BLE001 - the boundary to whatever user code has put into `sys.stderr`
        with suppress(OSError):  # closed: there is no place to say it
            os.write(2, line.encode(errors="replace"))


def report(what: str) -> None:
    """Say on stderr that user code raised the current exception outside of a call, with its traceback."""
    import traceback  # only failures need it

    try:
        text = traceback.format_exc()
    except BaseException as error:  # noqa: BLE001 - the boundary to a user's exception, as in `text_of`
        text = f"<a traceback that cannot be had: {type(error).__name__}>"
    warn(f"{what}; the worker goes on\n{text.rstrip()}")
