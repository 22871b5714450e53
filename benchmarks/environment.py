"""The environment of the programs in `peers/`: made once outside the tree, from the group `peers` of pyproject.toml.

Kept apart from ours because the official SDK is an import package called `iii` too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
# A registry that does not answer is none.
PATIENCE = 600.0


def requirements() -> list[str]:
    """Return what the group lists."""
    with PROJECT.open("rb") as file:
        found: list[str] = tomllib.load(file)["dependency-groups"]["peers"]
    return found


def install(folder: Path, packages: list[str]) -> None:
    """Make an environment with these packages."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True, timeout=PATIENCE)
    command = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)


def python_of_peers(install: Callable[[Path, list[str]], None] = install) -> Path | None:
    """Return the interpreter that has the peers, None where they cannot be installed; says so."""
    wanted = requirements()
    digest = hashlib.sha256("\n".join([sys.version, *wanted]).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iii-benchmarks"
    place = cache / f"peers-{digest}"
    if not place.exists():
        cache.mkdir(parents=True, exist_ok=True)
        print("installing the peers, once ...", file=sys.stderr, flush=True)
        fresh = Path(tempfile.mkdtemp(prefix=".peers-", dir=cache))
        try:
            install(fresh, wanted)
            fresh.rename(place)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"skipped, the peers cannot be installed: {last_line_of(error)}", file=sys.stderr)
            return None
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return place / "bin" / "python"


def last_line_of(error: Exception) -> str:
    """Return the words of an installer that gave up, or of the error itself."""
    lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
    return lines[-1] if lines else repr(error)
