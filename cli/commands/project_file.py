"""The project a command is about, and its engine's start. Loads no click: `main` calls it for a plain `iii dev`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def project_file(file: Path | None) -> Path:
    """Return the project file a command is about. Raises UsageError when there is none."""
    from iii.engine.config.project import PROJECT_FILE, find_project  # keeps `--help` light

    if file is not None:
        return file / PROJECT_FILE if file.is_dir() else file
    nearest = find_project(Path(os.getcwd()))
    if nearest is None:
        from cli.client.errors import UsageError  # only a failure pays for it

        raise UsageError("there is no iii.toml here or above", "make a project with `iii init`")
    return nearest


def run_project(file: Path | None = None, names: tuple[str, ...] = (), *, watch: bool, **options: Any) -> int:
    """Run the project's engine; return the exit code. `options` are those of `iii.engine.start.run`."""
    from iii.engine.config.json_schema import write_schema  # only when an engine is started
    from iii.engine.start import run

    path = project_file(file)
    if path.is_file() and os.access(path.parent, os.W_OK):
        write_schema(path.absolute().parent / ".iii")
    return run(path, names=names, watch=watch, **options)
