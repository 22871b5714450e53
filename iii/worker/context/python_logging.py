"""Python's own `logging` in a worker."""

from __future__ import annotations

import sys


def show_logging() -> None:
    """Let `logging` write records from INFO on, with their level, if the script leaves it as it is.

    As it is, it drops INFO, and writes the others without their level. A module that is not loaded is not loaded here.
    Standard workers say what they have to say themselves; the libraries in them stay silent.
    """
    logging = sys.modules.get("logging")
    root = getattr(logging, "root", None)
    is_loaded = hasattr(logging, "basicConfig")
    if logging is None or root is None or not is_loaded or "stdlib_workers" in sys.modules:
        return
    if not root.handlers and root.level == logging.WARNING:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
