"""`iii init [DIR]`: a project that runs, without a question.

The files of each template stand in `templates/NAME`; those that all Python projects share in `templates/common`.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import click

from cli.client.errors import UsageError
from cli.commands.options import json_option
from cli.text.output import shown, shown_json, write

_FOLDER = Path(__file__).parent / "templates"


class Template(NamedTuple):
    """What a template is for, the command to try first, how its tests run, and what is installed before."""

    text: str
    first_call: str
    test: str = "pytest"
    install: str = ""


TEMPLATES = {
    "minimal": Template("one typed function and its test", "iii trigger hello::greet name=Ada"),
    "http": Template("a function behind an HTTP route", "curl localhost:3111/hello/Ada"),
    "queue": Template("jobs with retries and dead letters", "iii trigger mail::welcome to=ada@example.org"),
    "agent": Template(
        "an answer that streams, made with tools", "iii trigger agent::answer question='How is the weather in Ulm?'"
    ),
    "typescript": Template(
        "a TypeScript worker on the npm SDK", "iii trigger hello::greet name=Ada", "npm test", "npm install"
    ),
}
# Files that a project may have before: they are kept, or get the lines that they lack.
_VSCODE = ".vscode/launch.json"
_KEPT = ("AGENTS.md", "package.json", "pyproject.toml", "tsconfig.json", _VSCODE)
_MERGED = ".gitignore"


@click.command("init")
@click.argument("folder", default=".", metavar="[DIR]", type=click.Path(file_okay=False, path_type=Path))
@click.option("--template", type=click.Choice(list(TEMPLATES)), default="minimal", show_default=True)
@click.option("--list", "is_list", is_flag=True, help="Show what the templates are for, and make nothing.")
@click.option("--vscode", is_flag=True, help=f"Write {_VSCODE} too; into a project that is there, only that.")
@json_option
def command(folder: Path, template: str, *, is_list: bool, vscode: bool, as_json: bool) -> None:
    """Make a new project in DIR (default: here). Existing files are never overwritten."""
    if is_list:
        rows = [{"name": name, "description": each.text} for name, each in TEMPLATES.items()]
        text = "\n".join(f"{row['name']:<11} {row['description']}" for row in rows)
        write(shown_json({"templates": rows}) if as_json else text)
        return
    is_there = vscode and (folder / "iii.toml").is_file()
    files = {} if is_there else files_of(template, folder.absolute().name)
    if vscode:
        files[_VSCODE] = (_FOLDER / "common" / "launch.json").read_text(encoding="utf-8")
    for name in files:
        if (folder / name).exists() and name not in (_MERGED, *_KEPT):
            raise UsageError(f"{folder / name} exists already", "choose an empty folder: iii init NAME")
    done = _put_all(folder, files)
    _write_schema(folder)
    if as_json:
        write(shown_json({"created": done["created"], "changed": done["added to"], "kept": done["kept"]}))
        return
    for what, names in done.items():
        if names:
            write(shown(f"  {what} {', '.join(names)}"))
    if is_there:
        write("  next: iii dev --debug NAME, then F5 in VS Code")
        return
    chosen = TEMPLATES[template]
    steps = [f"cd {shlex.quote(str(folder))}"] if folder != Path() else []
    write(shown(f"  next: {' && '.join([*steps, *filter(None, [chosen.install]), 'iii dev'])}"))
    write(f"  then, in a second terminal: {chosen.first_call}")
    write(f"  and the tests: {chosen.test}")


def files_of(template: str, project: str) -> dict[str, str]:
    """Return the files of a template, path -> text, for a project of this name."""
    chosen = TEMPLATES[template]
    name = re.sub(r"[^a-z0-9]+", "-", project.lower()).strip("-") or "project"
    words = {"PROJECT": name, "FIRST_CALL": chosen.first_call, "TEST": chosen.test}
    shared = ["AGENTS.md", *(["gitignore", "pyproject.toml"] if chosen.test == "pytest" else [])]
    paths = {each: _FOLDER / "common" / each for each in shared}
    own = (path for path in sorted((_FOLDER / template).rglob("*")) if path.is_file() and path.suffix != ".pyc")
    paths |= {path.relative_to(_FOLDER / template).as_posix(): path for path in own}
    files = {}
    for path in sorted(paths, key=lambda path: (path != "iii.toml", "/" not in path, path)):
        text = paths[path].read_text(encoding="utf-8")
        files[path.replace("gitignore", _MERGED)] = re.sub(
            r"\b(PROJECT|FIRST_CALL|TEST)\b", lambda word: words[word[0]], text
        )
    return files


def _put_all(folder: Path, files: dict[str, str]) -> dict[str, list[str]]:
    """Write the files; return what was done with which."""
    done: dict[str, list[str]] = {"created": [], "added to": [], "kept": []}
    for name, content in files.items():
        try:
            done[_put(folder / name, content, is_merged=name == _MERGED)].append(name)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{folder / name} cannot be written: {getattr(error, 'strerror', error)}") from None
    return done


def _put(path: Path, content: str, *, is_merged: bool) -> str:
    """Write a file that is not there yet, or the lines that it lacks; return what was done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
        return "created"
    except FileExistsError:
        if not is_merged:
            return "kept"
    present = path.read_text(encoding="utf-8")
    missing = [line for line in content.splitlines() if line not in present.splitlines()]
    if not missing:
        return "kept"
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * (present != "" and not present.endswith("\n")) + "".join(f"{line}\n" for line in missing))
    return "added to"


def _write_schema(folder: Path) -> None:
    # It belongs to the repository: editors have it in a fresh clone, before iii has ever run there.
    from iii.engine.config.json_schema import write_schema  # keeps `--help` light

    write_schema(folder.absolute() / ".iii")
