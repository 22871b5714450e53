"""`iii check`: validate iii.toml without an engine."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli.commands.options import file_option, json_option, profile_option
from cli.commands.project_file import project_file
from cli.text.output import count, shown, shown_json, write


@click.command("check")
@file_option
@profile_option
@json_option
def command(file: Path | None, profile: str | None, as_json: bool) -> None:
    """Validate iii.toml and write its JSON Schema for editors."""
    from iii.engine.config.json_schema import write_schema
    from iii.engine.config.project import load_project  # keeps `--help` light

    project = load_project(project_file(file), environ=os.environ, profile=profile)
    if os.access(project.root, os.W_OK):
        write_schema(project.state_dir)
    names = list(project.workers)
    listed = f" ({', '.join(names)})" if names else ""
    text = shown(f"{project.file.name} is valid: {count(len(names), 'worker')}{listed}")
    write(shown_json({"file": str(project.file), "workers": names}) if as_json else text)
