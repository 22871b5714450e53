"""`iii init [DIR]`: a project that runs, without a question."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from cli.client.errors import UsageError
from cli.commands.options import json_option
from cli.project.project_templates import FIRST_CALL, TEMPLATES
from cli.text.output import shown_json, write


@click.command("init")
@click.argument("folder", default=".", metavar="[DIR]", type=click.Path(file_okay=False, path_type=Path))
@click.option("--template", type=click.Choice(list(TEMPLATES)), default="minimal", show_default=True)
@json_option
def command(folder: Path, template: str, as_json: bool) -> None:
    """Make a new project in DIR (default: here). Existing files are never overwritten."""
    files = TEMPLATES[template]
    for name in files:
        if (folder / name).exists() and name != ".gitignore":
            raise UsageError(f"{folder / name} exists already", "choose an empty folder: iii init NAME")
    created = []
    for name, content in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(content)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from None
        created.append(name)
    if as_json:
        write(shown_json({"created": created}))
        return
    write(f"  created {', '.join(created)}")
    write(f"  next: {'' if folder == Path() else f'cd {shlex.quote(str(folder))} && '}iii dev")
    write(f"  then, in a second terminal: {FIRST_CALL[template]}")
