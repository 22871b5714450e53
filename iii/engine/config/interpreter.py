"""What a worker's `run` starts: a Python script with its interpreter, or a command.

Looks at the file system, starts nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from iii.engine.config.keys import split_command
from iii.engine.config.toml_document import Place

_INTERPRETER = Path("Scripts/python.exe") if sys.platform == "win32" else Path("bin/python")


def has_official_sdk(python: Path) -> bool:
    """Whether the interpreter's own environment has the official `iii-sdk`, whose `iii` then wins over ours."""
    prefix = python.parent.parent
    patterns = ("lib/python3*/site-packages/iii_sdk-*.dist-info", "Lib/site-packages/iii_sdk-*.dist-info")
    return any(next(prefix.glob(pattern), None) is not None for pattern in patterns)


def program_of(run: Any, at: Place, cwd: Path) -> dict[str, Any]:
    """Return the spec's `script`, looked up in `cwd`, or `command`. A missing script is an error; no shell is used."""
    if not isinstance(run, str):
        raise at.error("run must be a string, a .py file or a command line")
    if run.endswith(".py"):
        script = cwd / at.interpolated(run)
        if script.is_file():
            return {"script": script}
        if not re.search(r"\s", run):
            raise at.error(f"run: there is no file {script.name}", f"looked in {script.parent}")
    return {"command": split_command(run, at)}


def nearest_python(script: Path, cwd: Path, root: Path, environ: Mapping[str, str]) -> Path:
    """Return the interpreter of a script: of its own .venv, $VIRTUAL_ENV, the project's .venv, ours.

    Links are kept: an interpreter finds its virtual environment by the path it was started with.
    """
    folders = _environments(script, cwd, root, environ)
    return next((folder / _INTERPRETER for folder in folders if _is_usable(folder)), Path(sys.executable))


def unusable_environments(
    script: Path, cwd: Path, root: Path, environ: Mapping[str, str]
) -> Iterator[tuple[Path, str]]:
    """Yield the virtual environments that come before the interpreter of a script and cannot be used, and why."""
    for folder in _environments(script, cwd, root, environ):
        if _is_usable(folder):
            return
        interpreter = folder / _INTERPRETER
        if os.path.islink(interpreter) and not interpreter.exists():
            yield folder, f"{interpreter} is a link to {os.path.realpath(interpreter)}, which is not there"
        elif interpreter.exists():
            yield folder, f"{interpreter} is no program"
        elif os.path.lexists(folder) or folder == Path(environ.get("VIRTUAL_ENV") or "/"):
            yield folder, f"{interpreter} is not there"


def _environments(script: Path, cwd: Path, root: Path, environ: Mapping[str, str]) -> list[Path]:
    folders = [folder / ".venv" for folder in dict.fromkeys((script.parent, cwd)) if folder != root]
    if environ.get("VIRTUAL_ENV"):
        folders.append(Path(environ["VIRTUAL_ENV"]))
    return [*folders, root / ".venv"]


def _is_usable(folder: Path) -> bool:
    return (folder / _INTERPRETER).is_file() and os.access(folder / _INTERPRETER, os.X_OK)


def declared_python(value: Any, at: Place, root: Path, environ: Mapping[str, str]) -> Path:
    """Return the interpreter that a `python` key names: a file or a virtual environment below `root`, or a program."""
    if not isinstance(value, str) or not value:
        raise at.error("python must be a string, a path or a name on the PATH")
    text = at.interpolated(value)
    candidate = root / Path(text).expanduser()
    if candidate.is_dir():
        interpreter = shutil.which(candidate / _INTERPRETER)
    elif os.path.basename(text) == text:
        interpreter = shutil.which(text, path=environ.get("PATH"))
    else:
        interpreter = shutil.which(candidate)
    if interpreter is None:
        raise at.error(f"python: there is no interpreter {text}")
    return Path(interpreter)
