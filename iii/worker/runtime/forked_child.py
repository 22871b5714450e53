"""The end of a process that user code has forked inside a handler and let come back from there."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from iii.worker.calls.errors import body_from_exception
from iii.worker.codec.text import text_of, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def end_child(where: str, error: BaseException | None = None) -> NoReturn:
    """End a process that was forked inside a handler, and has come back from there with this error or with none.

    Its code is SystemExit's, else 0, and 1 for any other error. Only the worker itself answers calls.
    """
    code: object = getattr(error, "code", None) if isinstance(error, SystemExit) else None
    if error is None:
        warn(
            f"process {os.getpid()}, forked in {where}, has come back from it and ends: it cannot answer for the worker"
        )
    elif not isinstance(error, SystemExit):
        warn(f"process {os.getpid()}, forked in {where}, has failed\n{body_from_exception(error)['stacktrace']}")
        code = 1
    elif not isinstance(code, int | None):
        warn(text_of(code))
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or replaced by user code
            stream.flush()
    os._exit(code & 0xFF if isinstance(code, int) else 0)
