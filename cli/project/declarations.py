"""`iii check`, `iii env`, `iii add` and `iii worker remove`: what iii.toml declares. They need no engine.

A running engine picks an added worker up by itself, as any other edit of the file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from cli.client.errors import UsageError
from cli.commands import completion
from cli.commands.options import file_option, json_option, profile_option
from cli.commands.project_file import project_file
from cli.text.output import count, shown, shown_json, write, write_error
from cli.text.table import table


@click.command("check")
@file_option
@profile_option
@click.option("--values", "with_values", is_flag=True, help="List every value, and where it comes from.")
@json_option
def check(file: Path | None, profile: str | None, with_values: bool, as_json: bool) -> None:
    """Validate iii.toml and write its JSON Schema for editors."""
    from iii.engine.config.cautions import cautions_of
    from iii.engine.config.json_schema import write_schema
    from iii.engine.config.project import load_project  # keeps `--help` light

    project = load_project(project_file(file), environ=os.environ, profile=profile, is_check=True)
    if os.access(project.root, os.W_OK):
        write_schema(project.state_dir)
    names = list(project.workers)
    listed = f" ({', '.join(names)})" if names else ""
    answer: dict[str, Any] = {"file": str(project.file), "workers": names}
    if with_values:
        from iii.engine.config.provenance import configuration_of

        answer["values"] = configuration_of(project.file, os.environ, profile)["values"]
        if not as_json:
            rows = [(row["key"], shown_json(row["value"], raw=True), origin(row)) for row in answer["values"]]
            write(table(("KEY", "VALUE", "FROM"), rows, cut="VALUE"))
    text = shown(f"{project.file.name} is valid: {count(len(names), 'worker')}{listed}")
    write(shown_json(answer) if as_json else text)
    for caution in cautions_of(project, os.environ):
        write_error(f"warning: {shown(caution)}")


def origin(row: Mapping[str, Any]) -> str:
    """Return where a value comes from: `iii.toml:3, PORT from .env`, or `default`. Pure."""
    if row["source"] == "default":
        return "default"
    variables = [f"{used['name']} from {used['source']}" for used in row.get("variables", ())]
    return ", ".join((f"{row['file']}:{row['line']}", *variables)).replace("from not set", "is not set")


@click.command("env")
@click.argument("name", shell_complete=completion.declared_workers)
@file_option
@profile_option
@json_option
def env(name: str, file: Path | None, profile: str | None, as_json: bool) -> None:
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
    write(shown_json({"environment": entries}) if as_json else table(("NAME", "SOURCE", "VALUE"), rows, cut="VALUE"))


class Adding(click.Command):
    """`iii add NAME --help` shows what the worker's `config` may hold."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the usual page, then a section for each standard worker that is named."""
        from iii.config_schema import load_schema
        from iii.engine.config.project import STDLIB_WORKERS  # keeps `--help` light

        super().format_help(ctx, formatter)
        for word in sys.argv[2:]:
            schema = load_schema(STDLIB_WORKERS, standard_name(word)) if not word.startswith("-") else None
            if schema is not None:
                with formatter.section(f"[workers.{word}.config]"):
                    formatter.write_dl(list(config_rows(schema)))


def config_rows(schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield key and explanation of everything that a schema describes, tables inside of it with dotted names."""
    from iii.config_schema import wanted  # keeps `--help` light

    for name, part in schema.get("properties", {}).items():
        default = f"  [default: {shown_json(part['default'], raw=True)}]" if "default" in part else ""
        kind = f" ({wanted(part)})" if "type" in part or "enum" in part or "anyOf" in part else ""
        yield f"{prefix}{name}", shown(f"{part.get('description', '')}{kind}{default}".strip())
        inside = part.get("additionalProperties") or part.get("items") or part
        if isinstance(inside, dict):
            step = ".NAME." if part.get("additionalProperties") else "[]." if "items" in part else "."
            yield from config_rows(inside, f"{prefix}{name}{step}")


@click.command("add", cls=Adding)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completion.standard_workers)
@file_option
@json_option
def add(names: tuple[str, ...], file: Path | None, as_json: bool) -> None:
    """Add standard workers (state, queue, http, ...) to iii.toml. NAME --help shows what its config may hold."""
    from iii.config_schema import load_schema  # keeps `--help` light
    from iii.engine.config.project import STANDARD_WORKERS, STDLIB_WORKERS, load_project
    from iii.suggestions import did_you_mean

    path = project_file(file)
    declared = load_project(path, environ=os.environ).workers
    required: dict[str, tuple[str, ...]] = {}
    for name in names:
        if standard_name(name) not in STANDARD_WORKERS:
            hint = did_you_mean(name, STANDARD_WORKERS) or f"standard workers are {', '.join(STANDARD_WORKERS)}"
            raise UsageError(f"there is no standard worker `{name}`", hint)
        if name in declared:
            raise UsageError(f"the worker `{name}` is already in iii.toml, line {declared[name].line}")
        required[name] = tuple((load_schema(STDLIB_WORKERS, standard_name(name)) or {}).get("required", ()))
    _rewrite(path, lambda text: with_workers(text, required))
    missing = [f"workers.{name}.config.{key}" for name, keys in required.items() for key in keys]
    if as_json:
        write(shown_json({"added": list(names), "missing": missing}))
        return
    write(f"added {', '.join(names)} to {path.name}" + (f"; fill in {', '.join(missing)}" if missing else ""))


@click.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completion.declared_workers)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@file_option
@json_option
def remove(names: tuple[str, ...], yes: bool, file: Path | None, as_json: bool) -> None:
    """Remove workers from iii.toml. Scripts stay, and what standard workers have stored in .iii as well."""
    from iii.engine.config.project import load_project  # keeps `--help` light
    from iii.suggestions import did_you_mean

    path = project_file(file)
    declared = load_project(path, environ=os.environ).workers
    for name in names:
        if name not in declared:
            raise UsageError(f"there is no worker `{name}` in {path.name}", did_you_mean(name, declared))
        dependents = [other for other, spec in declared.items() if name in spec.after and other not in names]
        if dependents:
            text = f"the worker `{dependents[0]}` starts after `{name}`"
            raise UsageError(text, f"take `{name}` out of its `after`, {path.name} line {declared[dependents[0]].line}")
    if not yes:
        click.confirm(f"Remove {', '.join(names)} from {path.name}?", abort=True, err=True)
    _rewrite(path, lambda text: without_workers(text, names))
    write(shown_json({"removed": list(names)}) if as_json else f"removed {', '.join(names)} from {path.name}")


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    """Replace the text of a file in one step: a running engine never reads half of it. Follows links."""
    target = path.resolve()
    with target.open(encoding="utf-8", newline="") as stream:
        text = change(stream.read())
    draft = target.with_name(f".{target.name}.new")
    with draft.open("w", encoding="utf-8", newline="") as stream:
        stream.write(text)
    draft.chmod(target.stat().st_mode)
    draft.replace(target)


def without_workers(text: str, names: Collection[str]) -> str:
    """Return the TOML `text` without the tables of these workers, in the profiles as well. Pure."""
    import tomlkit  # keeps `--help` light

    document: Any = tomlkit.parse(text)
    for tables in (document, *document.get("profiles", {}).values()):
        workers = tables.get("workers", {})
        for name in names:
            if name in workers:
                del workers[name]
    return tomlkit.dumps(document)


def standard_name(name: str) -> str:
    """Return the standard worker that a name means: `iii-state` is the public name of `state`."""
    return name.removeprefix("iii-").replace("-", "_")


def with_workers(text: str, required: Mapping[str, tuple[str, ...]]) -> str:
    """Return the TOML `text` with a `[workers.NAME]` table for each name, and the required keys of its config. Pure.

    The keys stand there empty, which `iii check` refuses with what they must be.
    """
    import tomlkit  # keeps `--help` light

    document = tomlkit.parse(text)
    if "workers" not in document:
        document["workers"] = tomlkit.table(is_super_table=True)
    workers: Any = document["workers"]
    for name, keys in required.items():
        workers[name] = tomlkit.table(is_super_table=bool(keys))
        if keys:
            workers[name]["config"] = {key: "" for key in keys}
    return tomlkit.dumps(document)
