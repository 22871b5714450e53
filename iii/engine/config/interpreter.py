"""What a worker's `run` starts: a Python script with its interpreter, or a command.

Looks at the file system, starts nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from iii.engine.config.keys import Place, split_command
from iii.engine.config.toml_document import Document
from iii.engine.config.toml_positions import KeyPath

_INTERPRETER = Path("Scripts/python.exe") if sys.platform == "win32" else Path("bin/python")


def has_official_sdk(python: Path) -> bool:
    """Whether the interpreter's own environment has the official `iii-sdk`, whose `iii` then wins over ours."""
    prefix = python.parent.parent
    patterns = ("lib/python3*/site-packages/iii_sdk-*.dist-info", "Lib/site-packages/iii_sdk-*.dist-info")
    return any(next(prefix.glob(pattern), None) is not None for pattern in patterns)


class Program(Struct, frozen=True):
    """What one worker runs. Its `run` is looked up in `cwd`, its `python` in `root`."""

    document: Document
    root: Path
    cwd: Path
    environ: Mapping[str, str]

    def of_run(self, run: Any, path: KeyPath) -> dict[str, Any]:
        """Return the spec's `script` or `command`. A missing script is an error; no shell is used."""
        if not isinstance(run, str):
            raise self.document.error(path, "run must be a string, a .py file or a command line")
        if run.endswith(".py"):
            script = self.cwd / self.document.interpolated(run, path)
            if script.is_file():
                return {"script": script}
            if not re.search(r"\s", run):
                hint = f"looked in {script.parent}"
                raise self.document.error(path, f"run: there is no file {script.name}", hint)
        return {"command": split_command(run, Place(path, self.document))}

    def python(self, script: Path, entry: tuple[Any, KeyPath] | None) -> Path:
        """Return the interpreter: the `python` key, its own .venv, $VIRTUAL_ENV, the project's .venv, ours.

        Links are kept: an interpreter finds its virtual environment by the path it was started with.
        """
        if entry is not None:
            return self._declared(*entry)
        folders = [folder / ".venv" for folder in (script.parent, self.cwd) if folder != self.root]
        if self.environ.get("VIRTUAL_ENV"):
            folders.append(Path(self.environ["VIRTUAL_ENV"]))
        for folder in (*folders, self.root / ".venv"):
            if os.access(folder / _INTERPRETER, os.X_OK):
                return folder / _INTERPRETER
        return Path(sys.executable)

    def _declared(self, value: Any, path: KeyPath) -> Path:
        if not isinstance(value, str) or not value:
            raise self.document.error(path, "python must be a string, a path or a name on the PATH")
        text = self.document.interpolated(value, path)
        candidate = self.root / Path(text).expanduser()
        if candidate.is_dir():
            interpreter = shutil.which(candidate / _INTERPRETER)
        elif os.path.basename(text) == text:
            interpreter = shutil.which(text, path=self.environ.get("PATH"))
        else:
            interpreter = shutil.which(candidate)
        if interpreter is None:
            raise self.document.error(path, f"python: there is no interpreter {text}")
        return Path(interpreter)
