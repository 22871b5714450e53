"""What a worker's `run` starts: a Python script with its interpreter, or a command.

Looks at the file system, starts nothing.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from iii.config_schema import brief
from iii.engine.config.keys import split_command
from iii.engine.config.toml_document import Place
from iii.suggestions import did_you_mean

_INTERPRETER = Path("Scripts/python.exe") if sys.platform == "win32" else Path("bin/python")


def has_official_sdk(python: Path) -> bool:
    """Whether the interpreter's own environment has the official `iii-sdk`, whose `iii` then wins over ours."""
    prefix = python.parent.parent
    patterns = ("lib/python3*/site-packages/iii_sdk-*.dist-info", "Lib/site-packages/iii_sdk-*.dist-info")
    return any(next(prefix.glob(pattern), None) is not None for pattern in patterns)


MAX_NAME = 255  # bytes of a file's name that file systems take

# Programs whose first word is a file that they run, and options of Python that may stand before it.
_SCRIPT_RUNNER = re.compile(r"(python|pypy)[0-9.]*|node|bun|ruby|perl|php|(ba|da|z)?sh")
_FLAGS = frozenset({"-u", "-B", "-I", "-s", "-S", "-E", "-O", "-OO"})

# What a program comes with, where its name does not say it.
_PACKAGES = {
    **dict.fromkeys(("node", "npm", "npx"), "Node.js"),
    **dict.fromkeys(("go", "gofmt"), "Go"),
    **dict.fromkeys(("cargo", "rustc"), "Rust"),
    "uvx": "uv",
    "bunx": "bun",
}


def program_of(run: Any, at: Place, cwd: Path, environ: Mapping[str, str], *, is_made: bool = False) -> dict[str, Any]:
    """Return the spec's `script`, looked up in `cwd`, or `command`; no shell is used.

    A script or program that is not there is an error, unless `is_made`: a file of the project may be made later.
    """
    if not isinstance(run, str):
        raise at.error("run must be a string, a .py file or a command line")
    if run.endswith(".py"):
        script = cwd / at.interpolated(run)
        if os.path.isfile(script):  # not of `Path`, which raises for a name that is too long
            return {"script": script}
        if not re.search(r"\s", run):
            scripts = [path.name for path in script.parent.glob("*.py")]
            hint = did_you_mean(script.name, scripts) or f"looked in {script.parent}"
            raise at.error(f"run: there is no file {script.name}", hint)
    command = split_command(run, at)
    _check_program(command, at, cwd, environ, is_made=is_made)
    return {"command": command}


def _check_program(
    command: tuple[str, ...], at: Place, cwd: Path, environ: Mapping[str, str], *, is_made: bool
) -> None:
    program = command[0]
    missing = missing_file(command, cwd)
    if missing is not None:
        can_be_made = all(len(os.fsencode(part)) <= MAX_NAME for part in Path(missing).parts)
        if not (is_made and can_be_made):
            raise at.error(f"run: there is no file {brief(missing)}", f"looked in {cwd}")
    if os.sep in program:
        return
    path = environ.get("PATH", os.defpath)
    if shutil.which(program, path=path) is not None:
        return
    message = f"run: there is no program {brief(program)}"
    if program.endswith(".py"):
        raise at.error(
            message, f'write run = "python {brief(shlex.join(command))}": only a script without arguments runs alone'
        )
    if program in _PACKAGES:
        raise at.error(message, f"install {_PACKAGES[program]}")
    names = {name for folder in path.split(os.pathsep) for name in _names_in(folder)}
    raise at.error(message, did_you_mean(program, names) or "install it, or write the path of its file")


def missing_file(command: tuple[str, ...], cwd: Path) -> str | None:
    """Return the file that a command names and that is not there: its program, or the script of its interpreter."""
    program, *words = command
    if os.sep in program and not os.path.exists(cwd / program):
        return program
    if _SCRIPT_RUNNER.fullmatch(os.path.basename(program)):
        while words and words[0] in _FLAGS:
            del words[0]
        if words and not words[0].startswith("-") and Path(words[0]).suffix and not os.path.exists(cwd / words[0]):
            return words[0]
    return None


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


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
        if os.path.islink(interpreter) and not os.path.exists(interpreter):
            yield folder, f"{interpreter} is a link to {os.path.realpath(interpreter)}, which is not there"
        elif os.path.exists(interpreter):
            yield folder, f"{interpreter} is no program"
        elif os.path.lexists(folder) or folder == Path(environ.get("VIRTUAL_ENV") or "/"):
            yield folder, f"{interpreter} is not there"


def _environments(script: Path, cwd: Path, root: Path, environ: Mapping[str, str]) -> list[Path]:
    folders = [folder / ".venv" for folder in dict.fromkeys((script.parent, cwd)) if folder != root]
    if environ.get("VIRTUAL_ENV"):
        folders.append(Path(environ["VIRTUAL_ENV"]))
    return [*folders, root / ".venv"]


def _is_usable(folder: Path) -> bool:
    return os.path.isfile(folder / _INTERPRETER) and os.access(folder / _INTERPRETER, os.X_OK)


def declared_python(value: Any, at: Place, root: Path, environ: Mapping[str, str]) -> Path:
    """Return the interpreter that a `python` key names: a file or a virtual environment below `root`, or a program."""
    if not isinstance(value, str) or not value:
        raise at.error("python must be a string, a path or a name on the PATH")
    text = at.interpolated(value)
    candidate = root / os.path.expanduser(text)
    if os.path.isdir(candidate):
        interpreter = shutil.which(candidate / _INTERPRETER)
    elif os.path.basename(text) == text:
        interpreter = shutil.which(text, path=environ.get("PATH"))
    else:
        interpreter = shutil.which(candidate)
    if interpreter is None:
        raise at.error(f"python: there is no interpreter {brief(text)}", "write a path, or a name on the PATH")
    return Path(interpreter)
