"""Where the engine is: an explicit address, the environment, or the nearest `.iii/run/engine.json` upwards.

Part of the short path. Finds and judges addresses, opens nothing. Called by `connection`.
"""

from __future__ import annotations

import os

from cli.text.json import decode_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_FILE = os.path.join(".iii", "run", "engine.json")


def find_engine(explicit: str | None, environ: Mapping[str, str], folder: str) -> str | None:
    """Return the path of a unix socket or a ws:// URL, None when no engine is to be found.

    Order: `explicit`, III_URL, III_SOCKET, the run file in `folder` or above. Inside a worker III_URL is `stdio:`,
    which is the worker's own wire and no address. A run file whose process is gone counts as none.
    """
    url = explicit or environ.get("III_URL", "").strip()
    if url and not url.startswith("stdio:"):
        return url.removeprefix("unix://").removeprefix("unix:")
    running = {} if environ.get("III_SOCKET") else running_engine(folder)
    return environ.get("III_SOCKET") or running.get("socket") or running.get("url")


def running_engine(folder: str) -> dict[str, str]:
    """Return what the nearest run file upwards says of a living engine; nothing when there is none."""
    while True:
        described = _read(os.path.join(folder, RUN_FILE))
        if described is not None:
            return described if _is_alive(described.get("pid")) else {}
        parent = os.path.dirname(folder)
        if parent == folder:
            return {}
        folder = parent


def _read(path: str) -> dict[str, str] | None:
    try:
        with open(path, encoding="utf-8") as file:
            described = decode_line(file.read())
    except (OSError, ValueError):
        return None
    return described if isinstance(described, dict) else None


def _is_alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
