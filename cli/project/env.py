"""`iii env NAME`: the environment a worker gets, and where each value comes from."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli.client.errors import UsageError
from cli.commands.options import file_option, json_option, profile_option
from cli.commands.project_file import project_file
from cli.text.output import shown_json, write
from cli.text.table import table


@click.command("env")
@click.argument("name")
@file_option
@profile_option
@json_option
def command(name: str, file: Path | None, profile: str | None, as_json: bool) -> None:
    """Show a worker's environment; variables that only a running engine knows are left out."""
    from iii.engine.config.environment import environment_of
    from iii.engine.config.project import load_project  # keeps `--help` light
    from iii.suggestions import did_you_mean

    project = load_project(project_file(file), environ=os.environ, profile=profile)
    if name not in project.workers:
        raise UsageError(f"there is no worker `{name}` in {project.file.name}", did_you_mean(name, project.workers))
    merged = environment_of(project.workers[name], project, os.environ)
    entries = {key: {"value": value, "source": source} for key, (value, source) in merged.items()}
    rows = [(key, source, value) for key, (value, source) in merged.items()]
    write(shown_json({"environment": entries}) if as_json else table(("NAME", "SOURCE", "VALUE"), rows))
