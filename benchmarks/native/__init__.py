"""The C programs, compiled into the user's cache where a compiler is, else their Python stand-ins."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
STAND_INS = {
    "caller": SOURCES.parent / "ends" / "caller.py",
    "callee": SOURCES.parent / "ends" / "callee.py",
    "relay": SOURCES.parent / "floor.py",
}


def compiler() -> str | None:
    """Path of the C compiler, or None."""
    return shutil.which("gcc") or shutil.which("cc")


@functools.cache
def program(name: str) -> tuple[str, ...]:
    """Return the first words of the command that runs `caller`, `callee` or `relay`."""
    cc = compiler()
    if cc is None:
        return (sys.executable, str(STAND_INS[name]))
    target = _cache() / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([cc, "-O2", "-o", str(target), str(SOURCES / f"{name}.c")], check=True)
    return (str(target),)


def _cache() -> Path:
    """One folder for each state of the sources, outside the tree."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.glob("*.[ch]")):
        digest.update(source.read_bytes())
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "iii-benchmarks" / digest.hexdigest()[:16]
