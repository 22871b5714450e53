"""What the engine hands a standard worker in its environment, and how a worker ends that cannot start."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


def read_options(parse: Callable[[Any], T]) -> T:
    """Return what `parse` makes of the worker's config table; exit code 2 when it raises a ValueError."""
    try:
        return parse(json.loads(os.environ.get("III_CONFIG") or "{}"))
    except ValueError as error:
        end_worker(str(error), 2)


def end_worker(text: str, exit_code: int) -> NoReturn:
    """Write `text` to stderr and end the process."""
    sys.stderr.write(f"{text}\n")
    raise SystemExit(exit_code)
