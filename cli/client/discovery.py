"""Where the engine is: an explicit address, the environment, or the nearest `.iii/run/engine.json` upwards.

Part of the short path. Finds and judges addresses, opens nothing.
"""

from __future__ import annotations

import os

from cli.text.json import decode_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_FILE = os.path.join(".iii", "run", "engine.json")


def find_engine(explicit: str | None, environ: Mapping[str, str], folder: str) -> str | None:
    """Return the path of a unix socket or a ws:// URL, None if there is no engine.

    Order: `explicit`, III_URL, III_SOCKET, the run file in `folder` or above. Inside a worker III_URL is `stdio:`,
    which is the worker's own wire and no address. A run file whose process is gone does not count.
    """
    url = explicit or environ.get("III_URL", "").strip()
    if url and not url.startswith("stdio:"):
        return url.removeprefix("unix://").removeprefix("unix:")
    running = {} if environ.get("III_SOCKET") else running_engine(folder)
    return environ.get("III_SOCKET") or running.get("socket") or running.get("url")


def running_engine(folder: str) -> dict[str, str]:
    """Return the content of the nearest run file upwards; nothing if there is none, or if its engine is dead."""
    while True:
        try:
            with open(os.path.join(folder, RUN_FILE), encoding="utf-8") as file:
                described = decode_line(file.read())
        except (OSError, ValueError):
            described = None
        if isinstance(described, dict):
            return described if _is_alive(described.get("pid")) else {}
        parent = os.path.dirname(folder)
        if parent == folder:
            return {}
        folder = parent


def _is_alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's, but alive
    return True
