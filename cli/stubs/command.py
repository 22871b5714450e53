"""`iii types`: typed stubs of the functions of a running project, and whether those that are there still hold."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli.client.connection import connect
from cli.client.errors import UsageError
from cli.commands.options import engine_options
from cli.commands.project_file import project_file
from cli.stubs.comparison import Change, changes_between
from cli.stubs.contract import Function, from_text, read_contract, to_text
from cli.stubs.python import RESERVED as PYTHON_RESERVED
from cli.stubs.python import python_module
from cli.stubs.signatures import signatures_of
from cli.stubs.typescript import RESERVED as TYPESCRIPT_RESERVED
from cli.stubs.typescript import declarations, script
from cli.text.output import count, shown, shown_json, write

PACKAGE = "iii_functions"
CONTRACT = "functions.json"
# What a command line with a script for Node has among its first words.
_NODE_SUFFIXES = (".js", ".mjs", ".cjs", ".ts", ".mts", ".cts")


@click.command("types")
@click.option("--python", type=click.Path(path_type=Path), metavar="DIR", help="Write the Python package here.")
@click.option("--typescript", type=click.Path(path_type=Path), metavar="DIR", help="Write the declarations here.")
@click.option("--check", "is_check", is_flag=True, help="Write nothing; exit 1 if a function is not as it was.")
@engine_options
def types(python: Path | None, typescript: Path | None, is_check: bool, engine: str | None, as_json: bool) -> int:
    """Write typed stubs of all functions: for Python, TypeScript, or both.

    Without --python and --typescript they go into a folder `iii_functions` beside the workers of that language.
    """
    with connect(engine) as connection:
        functions = read_contract(connection)
    folders = {"python": python, "typescript": typescript}
    if python is None and typescript is None:
        folders = default_folders()
    stubs: dict[Path, dict[str, str]] = {}
    for language, folder in folders.items():
        if folder is not None:
            stubs.setdefault(folder, {}).update(stubs_of(functions, language))
    if is_check:
        return check(stubs, functions, as_json=as_json)
    written = [str(folder) for folder, files in stubs.items() if write_files(folder, files)]
    if as_json:
        write(
            shown_json({"functions": len(functions), "folders": [str(folder) for folder in stubs], "written": written})
        )
        return 0
    for folder in stubs:
        state = "wrote" if str(folder) in written else "unchanged:"
        write(shown(f"{state} {folder}: {count(len(functions), 'function')}"))
    return 0


def stubs_of(functions: list[Function], language: str) -> dict[str, str]:
    """Return the files of a stub package, name -> text. Pure."""
    if language == "python":
        module = python_module(signatures_of(functions, PYTHON_RESERVED))
        return {"__init__.py": module, "py.typed": "", CONTRACT: to_text(functions)}
    signatures = signatures_of(functions, TYPESCRIPT_RESERVED)
    package = '{ "type": "module", "main": "index.js", "types": "index.d.ts" }\n'
    files = {"index.d.ts": declarations(signatures), "index.js": script(signatures), "package.json": package}
    return {**files, CONTRACT: to_text(functions)}


def write_files(folder: Path, files: dict[str, str]) -> bool:
    """Write those files that are not there as they should be; return whether there was one. Raises UsageError."""
    stale = {name: text for name, text in files.items() if _text(folder / name) != text}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in stale.items():
            (folder / name).write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from None
    return bool(stale)


def check(stubs: dict[Path, dict[str, str]], functions: list[Function], *, as_json: bool) -> int:
    """Show what has changed since the stubs were written; return 1 if anything has. Raises UsageError without stubs."""
    changes: dict[tuple[str, str], Change] = {}
    stale: list[str] = []
    for folder, files in stubs.items():
        text = _text(folder / CONTRACT)
        if text is None:
            raise UsageError(f"there are no stubs in {folder}", "write them with `iii types`")
        found = changes_between(from_text(text, str(folder / CONTRACT)), functions)
        changes |= {(change.function.name, change.text): change for change in found}
        if not found and any(_text(folder / name) != content for name, content in files.items()):
            stale.append(str(folder))
    if as_json:
        rows = [
            {
                "function_id": change.function.id,
                "namespace": change.function.namespace,
                "breaking": change.is_breaking,
                "change": change.text,
            }
            for change in changes.values()
        ]
        write(shown_json({"changes": rows, "stale": stale}))
        return int(bool(rows or stale))
    width = max((len(shown(change.function.name)) for change in changes.values()), default=0)
    for change in changes.values():
        kind = "breaking" if change.is_breaking else "compatible"
        write(f"{kind:<10}  {shown(change.function.name):<{width}}  {shown(change.text)}")
    for name in stale:
        write(shown(f"{name} is not what this version writes; run `iii types`"))
    if not changes and not stale:
        write(f"unchanged: {count(len(functions), 'function')}")
    return int(bool(changes or stale))


def default_folders() -> dict[str, Path | None]:
    """Return where the stubs of each language go: beside the workers. Raises UsageError where that cannot be told."""
    from iii.engine.config.project import load_project  # keeps `--help` light

    workers = load_project(project_file(None), environ=os.environ).workers.values()
    places = {
        "python": {spec.script.parent for spec in workers if spec.script is not None},
        "typescript": {
            (spec.cwd / word).parent
            for spec in workers
            for word in spec.command
            if word.endswith(_NODE_SUFFIXES) and "node_modules" not in word
        },
    }
    if not any(places.values()):
        raise UsageError("no worker of this project is Python or TypeScript", "give --python DIR or --typescript DIR")
    return {language: _only(language, folders) for language, folders in places.items()}


def _only(language: str, folders: set[Path]) -> Path | None:
    if len(folders) > 1:
        listed = ", ".join(sorted(map(os.path.relpath, folders)))
        raise UsageError(f"the {language} workers are in several folders: {listed}", f"give --{language} DIR")
    return next((Path(os.path.relpath(folder / PACKAGE)) for folder in folders), None)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
