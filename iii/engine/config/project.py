"""iii.toml -> frozen specs. Every mistake is a ProjectError with file, line, column and the way out.

Owns what the tables mean: workers, profiles, the order of start. Single keys are checked in `keys`, what `run` starts
is found in `interpreter`, the environment of a worker is put together in `environment`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from iii.engine.config.environment import ENV_FILES, read_env_file
from iii.engine.config.interpreter import Program, has_official_sdk
from iii.engine.config.keys import ENGINE_KEYS, NAME, WORKER_KEYS, check
from iii.engine.config.spec import EngineSpec, ProjectSpec, WorkerSpec
from iii.engine.config.toml_document import Document, read_document
from iii.engine.config.toml_positions import KeyPath
from iii.suggestions import did_you_mean

STANDARD_WORKERS = (
    *("state", "stream", "queue", "pubsub", "cron", "http", "bridge"),
    *("http_functions", "observability", "configuration"),
)
PROJECT_FILE = "iii.toml"

_TOP = ("engine", "workers", "profiles")
_KEYS = {key.name: key for key in WORKER_KEYS}
# These need the file system; all other keys go into the spec under their own name.
_ELSEWHERE = ("run", "cwd", "env_file", "python")
_PLAIN = tuple(name for name in _KEYS if name not in _ELSEWHERE)


class _Project(Struct, frozen=True):
    """What every table of one load needs."""

    document: Document
    root: Path
    environ: Mapping[str, str]


# The entries of one worker: key -> (raw value, where it is written). A profile replaces single entries.
_Entries = dict[str, tuple[Any, KeyPath]]


def load_project(path: Path, *, environ: Mapping[str, str], profile: str | None = None) -> ProjectSpec:
    """Read the project file `path`.

    `environ` is the shell's environment; it and the project's .env files hold the values of `${VAR}`. `profile` names
    a table of `[profiles]` whose workers override those of the file. Raises ProjectError.
    """
    file = Path(path).absolute()
    root = file.parent
    variables: dict[str, str] = {}
    for name in reversed(ENV_FILES):
        variables.update(read_env_file(root / name, optional=True))
    document = read_document(file, {**variables, **environ}.get)
    _check_names(document, (), _TOP)
    if not document.data:
        raise document.error((), "no workers are declared", "add a [workers.NAME] table, or run `iii init`")
    project = _Project(document, root, environ)
    workers = {name: _worker(name, entries, project) for name, entries in _tables(document, profile).items()}
    _check_order(workers, document)
    return ProjectSpec(root, root.name, file, _engine(document), MappingProxyType(workers))


def changed_workers(old: ProjectSpec, new: ProjectSpec) -> tuple[list[str], list[str], list[str]]:
    """Return the names of the added, removed and changed workers; a table that only moved is unchanged."""
    added = [name for name in new.workers if name not in old.workers]
    removed = [name for name in old.workers if name not in new.workers]
    both = [name for name in new.workers if name in old.workers]
    changed = [name for name in both if replace(old.workers[name], line=new.workers[name].line) != new.workers[name]]
    return added, removed, changed


def find_project(start: Path) -> Path | None:
    """Return the nearest iii.toml in `start` or a folder above it."""
    for folder in (start, *start.parents):
        if (folder / PROJECT_FILE).is_file():
            return folder / PROJECT_FILE
    return None


def _check_names(document: Document, path: KeyPath, known: tuple[str, ...]) -> dict[str, Any]:
    table = _table(document, path)
    for name in table:
        if name not in known:
            what = "table" if not path else "key"
            hint = did_you_mean(name, known) or f"known keys are {', '.join(known)}"
            raise document.error((*path, name), f"unknown {what} `{name}`", hint)
    return table


def _table(document: Document, path: KeyPath) -> dict[str, Any]:
    value: Any = document.data
    for part in path:
        value = value.get(part, {}) if isinstance(part, str) else value[part]
    if not isinstance(value, dict):
        raise document.error(path, f"{'.'.join(map(str, path))} must be a table", f"write [{path[0]}.NAME]")
    return value


def _engine(document: Document) -> EngineSpec:
    table = _check_names(document, ("engine",), (*(key.name for key in ENGINE_KEYS), "listeners"))
    rows = (key for key in ENGINE_KEYS if key.name in table)
    values = {key.name: check(key, table[key.name], ("engine", key.name), document) for key in rows}
    if "listen" in values:
        values["listen_line"] = document.line(("engine", "listen"))
    if "listeners" in table:
        from iii.engine.config.listeners import listeners_of  # few projects have any

        values["listeners"] = listeners_of(document, table["listeners"])
    return EngineSpec(**values)


def _tables(document: Document, profile: str | None) -> dict[str, _Entries]:
    tables: dict[str, _Entries] = {}
    for name in _worker_names(document, ("workers",)):
        tables[name] = _entries(document, ("workers", name))
    profiles = _table(document, ("profiles",))
    for declared in profiles:
        _check_names(document, ("profiles", declared), ("workers",))
        for name in _worker_names(document, ("profiles", declared, "workers")):
            entries = _entries(document, ("profiles", declared, "workers", name))
            if declared == profile:
                tables.setdefault(name, {}).update(entries)
    if profile is not None and profile not in profiles:
        hint = did_you_mean(profile, profiles) or f"add a [profiles.{profile}.workers.NAME] table"
        raise document.error(("profiles",), f"there is no profile `{profile}`", hint)
    return tables


def _worker_names(document: Document, path: KeyPath) -> Iterator[str]:
    seen: dict[str, str] = {}
    for name in _table(document, path):
        if not NAME.fullmatch(name):
            rule = "a name is letters, digits, `_`, `-` and `.`, begins with a letter or digit, at most 64"
            raise document.error((*path, name), f"`{name}` cannot name a worker", rule)
        twin = seen.setdefault(name.lower(), name)
        if twin != name:
            first = document.line((*path, twin))
            message = f"the worker `{name}` is also declared as `{twin}` in line {first}"
            raise document.error((*path, name), message, "names must differ by more than case")
        yield name


def _entries(document: Document, path: KeyPath) -> _Entries:
    table = _check_names(document, path, tuple(_KEYS))
    return {name: (value, (*path, name)) for name, value in table.items()}


def _worker(name: str, entries: _Entries, project: _Project) -> WorkerSpec:
    document = project.document
    table: KeyPath = ("workers", name)
    if table not in document.positions.keys and entries:
        table = next(iter(entries.values()))[1][:-1]
    values = {key: _value(key, entries, document) for key in _PLAIN if key in entries}
    cwd = project.root
    if "cwd" in entries:
        cwd = project.root / str(_value("cwd", entries, document))
        if not cwd.is_dir():
            raise document.error(entries["cwd"][1], f"cwd: there is no folder {cwd}")
    values["cwd"] = cwd
    values["env_files"] = _env_files(entries, project)
    program = Program(document, project.root, cwd, project.environ)
    if "run" in entries:
        values.update(program.of_run(*entries["run"]))
        if "python" in entries and "script" not in values:
            raise document.error(entries["python"][1], "python is for a `run` that is a .py file")
        if "script" in values:
            values["python"] = program.python(values["script"], entries.get("python"))
            values["is_official"] = has_official_sdk(values["python"])
    else:
        values["standard"] = _standard(name, table, values, document)
        # Two generations must not own its files and ports at once; the http worker hands its port to the next one.
        values.setdefault("reload", "swap" if values["standard"] == "http" else "exclusive")
    return WorkerSpec(name=name, line=document.line(table), **values)


def _value(key: str, entries: _Entries, document: Document) -> Any:
    raw, path = entries[key]
    value = check(_KEYS[key], raw, path, document)
    return MappingProxyType(value) if isinstance(value, dict) else value


def _env_files(entries: _Entries, project: _Project) -> tuple[Path, ...]:
    if "env_file" not in entries:
        return ()
    files = tuple(project.root / name for name in _value("env_file", entries, project.document))
    for file in files:
        if not file.is_file():
            raise project.document.error(entries["env_file"][1], f"env_file: there is no file {file}")
        read_env_file(file)
    return files


def _standard(name: str, table: KeyPath, values: dict[str, Any], document: Document) -> str:
    standard = name.removeprefix("iii-").replace("-", "_")
    if standard not in STANDARD_WORKERS:
        hint = f"give it a `run`; workers that need none are {', '.join(STANDARD_WORKERS)}"
        message = f"the worker `{name}` has no `run`"
        guess = did_you_mean(standard, STANDARD_WORKERS)
        raise document.error(table, f"{message}; {guess}" if guess else message, hint)
    if values.get("instances", 1) != 1:
        raise document.error((*table, "instances"), "a standard worker has one instance", "it owns its files")
    return standard


def _check_order(workers: Mapping[str, WorkerSpec], document: Document) -> None:
    for name, spec in workers.items():
        for index, dependency in enumerate(spec.after):
            path = ("workers", name, "after", index)
            if dependency not in workers:
                hint = did_you_mean(dependency, workers) or "declare it"
                raise document.error(path, f"after: there is no worker `{dependency}`", hint)
            chain = _chain(dependency, name, workers)
            if chain:
                raise document.error(path, f"after: {' -> '.join((name, *chain))} is a circle", "break it")


def _chain(start: str, end: str, workers: Mapping[str, WorkerSpec]) -> tuple[str, ...]:
    """Return the way from `start` to `end` along `after`, empty if there is none."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        if way[-1] == end:
            return way
        if way[-1] not in seen and way[-1] in workers:
            seen.add(way[-1])
            ways.extend((*way, name) for name in workers[way[-1]].after)
    return ()
