"""What Python's `logging` writes in a worker that does not configure it."""

from __future__ import annotations

import subprocess
import sys

LOGGING = """
import logging
from iii.worker.context.python_logging import show_logging
{before}
show_logging()
logging.info("one")
logging.getLogger("a").error("two")
"""


def logged(before: str) -> list[str]:
    """Return what a fresh Python, whose `logging` was used like this before, writes of an INFO and an ERROR."""
    done = subprocess.run(
        [sys.executable, "-c", LOGGING.format(before=before)], capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()


def test_logging_shows_info_with_its_level_unless_the_script_has_configured_it() -> None:
    assert logged("") == ["INFO root: one", "ERROR a: two"]
    assert logged("logging.basicConfig(format='mine %(message)s')") == ["mine two"]
    assert logged("logging.getLogger().setLevel('CRITICAL')") == []


def test_logging_is_not_loaded_for_its_own_sake() -> None:
    code = "from iii.worker.context.python_logging import *; show_logging(); print('logging' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
