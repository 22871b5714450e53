"""The command line as a real process, for the tests of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Runs `iii WORDS...` in the test's folder; keywords are added to its environment, `stdin` is its input.
Iii = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a command: this one without what would name another engine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("III_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **more}
