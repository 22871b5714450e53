"""`iii add NAME`: put a standard worker into iii.toml, comments and layout kept.

A running engine picks the change up by itself, as any other edit of the file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from cli.client.errors import UsageError
from cli.commands.options import file_option, json_option
from cli.commands.project_file import project_file
from cli.text.output import shown_json, write


@click.command("add")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@file_option
@json_option
def command(names: tuple[str, ...], file: Path | None, as_json: bool) -> None:
    """Add standard workers (state, queue, http, ...) to iii.toml."""
    from iii.engine.config.project import STANDARD_WORKERS, load_project  # keeps `--help` light
    from iii.suggestions import did_you_mean

    path = project_file(file)
    declared = load_project(path, environ=os.environ).workers
    for name in names:
        if name.removeprefix("iii-").replace("-", "_") not in STANDARD_WORKERS:
            hint = did_you_mean(name, STANDARD_WORKERS) or f"standard workers are {', '.join(STANDARD_WORKERS)}"
            raise UsageError(f"there is no standard worker `{name}`", hint)
        if name in declared:
            raise UsageError(f"the worker `{name}` is already in iii.toml, line {declared[name].line}")
    with path.open(encoding="utf-8", newline="") as stream:
        text = with_workers(stream.read(), names)
    # In one step, so that a running engine never reads half a file; through a link, to the file it stands for.
    target = path.resolve()
    draft = target.with_name(f".{target.name}.new")
    with draft.open("w", encoding="utf-8", newline="") as stream:
        stream.write(text)
    draft.chmod(target.stat().st_mode)
    draft.replace(target)
    write(shown_json({"added": list(names)}) if as_json else f"added {', '.join(names)} to {path.name}")


def with_workers(text: str, names: tuple[str, ...]) -> str:
    """Return the TOML `text` with an empty `[workers.NAME]` table for each name. Pure."""
    import tomlkit  # keeps `--help` light

    document = tomlkit.parse(text)
    if "workers" not in document:
        document["workers"] = tomlkit.table(is_super_table=True)
    workers: Any = document["workers"]
    for name in names:
        workers[name] = tomlkit.table()
    return tomlkit.dumps(document)
