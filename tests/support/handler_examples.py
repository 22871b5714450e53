"""Copies of the examples on handlers, run by a real engine on ports of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.live_project import ROOT, Project
from tests.support.web_project import Web

EXAMPLES = ("shortener", "orders", "agent")
# Stands for the agent's tools where Node is not what a test is about.
TOOLS = """
from iii import register_worker

worker = register_worker()


@worker.function("tools::weather")
def weather(city: str) -> dict[str, object]:
    return {"sky": "sunny", "degrees": 13}
"""


def copied(name: str, folder: Path, *, node_modules: Path | None = None) -> Path:
    """Copy an example; without `node_modules` the agent's tools are a script in Python."""
    place = folder / name
    shutil.copytree(ROOT / "examples" / name, place, ignore=shutil.ignore_patterns(".iii", "node_modules"))
    toml = (place / "iii.toml").read_text()
    if node_modules is not None:
        (place / "node_modules").symlink_to(node_modules)
    elif name == "agent":
        (place / "tools.py").write_text(TOOLS)
        toml = toml.replace("node_modules/.bin/tsx tools.ts", "tools.py").replace('"tools.ts"', '"tools.py"')
    table = "[workers.http.config]"
    toml = toml.replace(table if table in toml else "[workers.http]", f"{table}\nport = 0\ndefault_timeout = '5s'", 1)
    (place / "iii.toml").write_text('[engine]\nlisten = "127.0.0.1:0"\n' + toml)
    return place


@contextmanager
def running(place: Path, command: str = "start") -> Iterator[Web]:
    """Run a copy."""
    made = Project(place, (place / "iii.toml").read_text(), {})
    made.start(command)
    try:
        yield Web(made)
    finally:
        made.stop()
