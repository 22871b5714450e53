"""iii.toml -> frozen specs. Every mistake is a ProjectError with file, line, column and the way out.

Owns what the tables mean: workers, profiles, the order of start. Single keys are checked in `keys`, what `run` starts
is found in `interpreter`, the environment of a worker is put together in `environment`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from iii.config_schema import brief, load_schema, mistakes
from iii.engine.config.environment import read_env_file, variables_of
from iii.engine.config.interpreter import declared_python, has_official_sdk, nearest_python, program_of
from iii.engine.config.keys import CLUSTER_KEYS, DURABLE, ENGINE_KEYS, NAME, WORKER_KEYS, Key, check
from iii.engine.config.mistakes import Mistakes
from iii.engine.config.spec import ClusterSpec, EngineSpec, ProjectSpec, WorkerSpec
from iii.engine.config.toml_document import Place, read_document
from iii.errors import ProjectError
from iii.suggestions import did_you_mean

STANDARD_WORKERS = (
    *("state", "stream", "queue", "flow", "pubsub", "cron", "http", "bridge"),
    *("http_functions", "mcp", "observability", "configuration", "console"),
)
# Those whose `config` names the socket that the engine opens for them, with the port they have by default.
LISTENING = {"http": 3111, "console": 3113, "mcp": 3114}
# Where the standard workers are, each with the schema of its `config`.
STDLIB_WORKERS = Path(__file__).parents[3] / "stdlib_workers"
PROJECT_FILE = "iii.toml"
MAX_SHOWN = 10  # workers of a circle that its message names

_TOP = ("engine", "cluster", "workers", "profiles")
# Keys of [cluster] with several values: what each has to be, what is said of one that is not, and the way out.
_CLUSTER_RULES: tuple[tuple[str, Callable[[str], bool], str, str], ...] = (
    (
        "servers",
        lambda value: value.startswith(("nats://", "tls://", "ws://", "wss://")),
        "is no URL of a NATS server",
        'write "nats://HOST:4222"',
    ),
    (
        "monitors",
        lambda value: value.startswith(("http://", "https://")),
        "is no URL of a monitoring page",
        'write "http://HOST:8222"',
    ),
    (
        "durable",
        DURABLE.__contains__,
        "cannot keep its data in the NATS servers",
        f"of the standard workers, these can: {', '.join(DURABLE)}",
    ),
)
_KEYS = {key.name: key for key in WORKER_KEYS}
# These need the file system; all other keys go into the spec under their own name.
_PLAIN = tuple(name for name in _KEYS if name not in ("run", "cwd", "env_file", "python"))

# The entries of one worker: key -> (raw value, where it is written). A profile replaces single entries.
_Entries = dict[str, tuple[Any, Place]]


def load_project(
    path: Path, *, environ: Mapping[str, str], profile: str | None = None, is_check: bool = False
) -> ProjectSpec:
    """Read the project file `path`.

    `environ` is the shell's environment; it and the project's .env files hold the values of `${VAR}`. `profile` names
    a table of `[profiles]` whose workers override those of the file. With `is_check` a `run` whose file is not there is
    a mistake, too; a project starts without it, since the file may be made later. Raises ProjectError.
    """
    file = Path(path).absolute()
    root = file.parent
    try:
        str(file).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(file).decode("utf-8", "backslashreplace")
        # Environments, messages and logs carry it as text.
        raise ProjectError(f"the path of the project, {shown}, is not UTF-8", hint="rename that folder") from None
    known = {name: value for name, (value, _) in variables_of(root, environ).items()}
    reader = _Reader(read_document(file, known.get), root, environ, known, is_check=is_check)
    return reader.project(file, profile)


def find_project(start: Path) -> Path | None:
    """Return the nearest iii.toml in `start` or a folder above it."""
    for folder in (start, *start.parents):
        # Also what is no file: reading it says so.
        if os.path.exists(folder / PROJECT_FILE) and not os.path.isdir(folder / PROJECT_FILE):
            return folder / PROJECT_FILE
    return None


def those_of_engine(project: ProjectSpec) -> ProjectSpec:
    """Return the project with the workers that this engine of its cluster runs: `only` may leave some to others.

    The workers that are left wait for none that others run.
    """
    cluster = project.cluster
    if cluster is None:
        return project
    names = (cluster.engine, *cluster.labels)
    kept = {
        name: spec
        for name, spec in project.workers.items()
        if not spec.only or any(fnmatchcase(each, pattern) for each in names for pattern in spec.only)
    }
    workers = {
        name: replace(spec, after=tuple(other for other in spec.after if other in kept)) for name, spec in kept.items()
    }
    return replace(project, workers=MappingProxyType(workers))


class _Reader:
    """Reads the tables of one file. A mistake does not end it: what can be checked without it still is."""

    def __init__(
        self, top: Place, root: Path, environ: Mapping[str, str], known: Mapping[str, str], *, is_check: bool
    ) -> None:
        self._top = top
        self._root = root
        self._environ = environ
        self._known = known  # the values that .env files may refer to
        self._is_check = is_check
        self._mistakes = Mistakes()
        self._misspelled: set[str] = set()  # workers with an unknown key, or that are no table

    def project(self, file: Path, profile: str | None) -> ProjectSpec:
        """Return the whole project. Raises ProjectError with all mistakes."""
        top, collected = self._top, self._mistakes.collected
        if not self._table(top, _TOP) and not self._mistakes:
            raise top.error("no workers are declared", "add a [workers.NAME] table, or run `iii init`")
        workers, engine, cluster = {}, EngineSpec(), None
        for name, entries in self._tables(profile).items():
            with collected():
                workers[name] = self._worker(name, entries)
        with collected():
            engine = self._engine(top.inside("engine"))
        with collected():
            cluster = self._cluster(top.inside("cluster"))
        self._mistakes.raise_all()
        _check_order(workers, top)
        for name, spec in workers.items():
            if spec.only and cluster is None:
                at = top.inside("workers", name, "only")
                raise at.error("only chooses engines of a cluster", "add a [cluster] table")
        return ProjectSpec(self._root, self._root.name, file, engine, cluster, MappingProxyType(workers))

    def _table(self, at: Place, known: Collection[str] = ()) -> dict[str, Any]:
        """Return the table that is written there, an empty one if there is none; with `known`, without other names."""
        table = at.document.data_at(at.path)
        if not isinstance(table, dict):
            self._mistakes.add(at.error(f"{at.dotted} must be a table", f"write [{at.path[0]}.NAME]"))
            return {}
        for name in table if known else ():
            if name not in known:
                hint = did_you_mean(name, known) or f"known keys are {', '.join(known)}"
                what = "key" if at.path else "table"
                self._mistakes.add(at.inside(name).error(f"unknown {what} `{brief(name)}`", hint))
        return {name: value for name, value in table.items() if not known or name in known}

    def _engine(self, at: Place) -> EngineSpec:
        table = self._table(at, (*(key.name for key in ENGINE_KEYS), "listeners"))
        values = self._checked(ENGINE_KEYS, table, at)
        if "listen" in values:
            values["listen_line"] = at.inside("listen").line
        if "listeners" in table:
            from iii.engine.config.listeners import listeners_of  # few projects have any

            values["listeners"] = listeners_of(table["listeners"], at.inside("listeners"))
        return EngineSpec(**values)

    def _checked(self, keys: tuple[Key, ...], table: Mapping[str, Any], at: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key in keys:
            if key.name in table:
                with self._mistakes.collected():
                    values[key.name] = check(key, table[key.name], at.inside(key.name))
        return values

    def _cluster(self, at: Place) -> ClusterSpec | None:
        if at.path not in at.document.positions.keys:
            return None
        values = self._checked(CLUSTER_KEYS, self._table(at, tuple(key.name for key in CLUSTER_KEYS)), at)
        if not values.get("servers"):
            raise at.error("cluster: no servers", 'write servers = ["nats://HOST:4222"]')
        _check_lists(values, at)
        for key, default in (("name", self._root.name), ("engine", os.uname().nodename)):
            if not NAME.fullmatch(values.setdefault(key, default)):
                raise at.error(f"cluster: {brief(default)} cannot be its {key}", f'write {key} = "NAME"')
        for key in ("credentials", "tls_ca", "tls_cert", "tls_key"):
            if key in values:
                values[key] = path = self._root / values[key]
                if not os.path.exists(path):
                    raise at.inside(key).error(f"{key}: there is no file {path}")
        return ClusterSpec(**values, line=at.line)

    def _tables(self, profile: str | None) -> dict[str, _Entries]:
        top = self._top
        tables = dict(self._declared(top.inside("workers")))
        profiles = self._table(top.inside("profiles"))
        for name in profiles:
            self._table(top.inside("profiles", name), ("workers",))
            for worker, entries in self._declared(top.inside("profiles", name, "workers")):
                if name == profile:
                    tables.setdefault(worker, {}).update(entries)
        if profile is not None and profile not in profiles:
            hint = did_you_mean(profile, profiles) or f"add a [profiles.{profile}.workers.NAME] table"
            self._mistakes.add(top.inside("profiles").error(f"there is no profile `{profile}`", hint))
        return tables

    def _declared(self, at: Place) -> Iterator[tuple[str, _Entries]]:
        seen: dict[str, str] = {}
        for name in self._table(at):
            place = at.inside(name)
            if not NAME.fullmatch(name):
                rule = "a name is letters, digits, `_`, `-` and `.`, begins with a letter or digit, at most 64"
                self._mistakes.add(place.error(f"`{brief(name)}` cannot name a worker", rule))
                continue
            twin = seen.setdefault(name.lower(), name)
            if twin != name:
                message = f"the worker `{name}` is also declared as `{twin}` in line {at.inside(twin).line}"
                self._mistakes.add(place.error(message, "names must differ by more than case"))
            table = self._table(place, _KEYS)
            if table != at.document.data_at(place.path):
                self._misspelled.add(name)
            yield name, {key: (value, place.inside(key)) for key, value in table.items()}

    def _worker(self, name: str, entries: _Entries) -> WorkerSpec:
        collected, top = self._mistakes.collected, self._top
        at = top.inside("workers", name)
        if at.path not in top.document.positions.keys and entries:
            at = Place(next(iter(entries.values()))[1].path[:-1], top.document)
        values: dict[str, Any] = {}
        for key in _PLAIN:
            if key in entries:
                with collected():
                    values[key] = _value(key, entries)
        values["cwd"] = self._root
        with collected():
            values["cwd"] = self._cwd(entries)
        with collected():
            values["env_files"] = self._env_files(entries)
        if "run" in entries:
            with collected():
                values.update(self._program(entries, values["cwd"]))
        elif name not in self._misspelled:
            values["standard"] = standard = _standard(name, at, values)
            # Two generations must not own its files at once; a socket of the engine's is for both.
            values.setdefault("reload", "swap" if standard in LISTENING else "exclusive")
            # A table without a config lacks what it must have as well.
            config, written_at = (values["config"], entries["config"][1]) if "config" in values else ({}, at)
            self._check_config(standard, config, written_at)
            if standard in LISTENING:
                values.update(_address_in_config(values, entries, LISTENING[standard]))
        return WorkerSpec(name=name, line=at.line, **values)

    def _cwd(self, entries: _Entries) -> Path:
        cwd = self._root / str(_value("cwd", entries)) if "cwd" in entries else self._root
        if not os.path.isdir(cwd):
            raise entries["cwd"][1].error(f"cwd: there is no folder {cwd}")
        return cwd

    def _env_files(self, entries: _Entries) -> tuple[Path, ...]:
        files = tuple(self._root / file for file in _value("env_file", entries)) if "env_file" in entries else ()
        known = self._known
        for file in files:
            if not os.path.exists(file):
                raise entries["env_file"][1].error(f"env_file: there is no file {file}")
            known = {**known, **read_env_file(file, known), **self._environ}
        return files

    def _program(self, entries: _Entries, cwd: Path) -> dict[str, Any]:
        # A command before each start, or another worker, may make the program.
        is_made = "pre" in entries or not self._is_check
        values = program_of(*entries["run"], cwd, self._environ, is_made=is_made)
        if "script" not in values:
            if "python" in entries:
                raise entries["python"][1].error("python is for a `run` that is a .py file")
            return values
        has_declared_python = "python" in entries
        if has_declared_python:
            python = declared_python(*entries["python"], self._root, self._environ)
        else:
            python = nearest_python(values["script"], cwd, self._root, self._environ)
        return {
            **values,
            "python": python,
            "has_declared_python": has_declared_python,
            "is_official": has_official_sdk(python),
        }

    def _check_config(self, standard: str, config: Mapping[str, Any], at: Place) -> None:
        schema = load_schema(STDLIB_WORKERS, standard)
        for mistake in () if schema is None else mistakes(dict(config), schema):
            self._mistakes.add(at.inside(*mistake.path).error(mistake.message, mistake.hint))


def _address_in_config(values: dict[str, Any], entries: _Entries, default: int) -> dict[str, Any]:
    """Return what `host` and `port` of a worker's config say about its socket; wrong ones are refused elsewhere."""
    config = values.get("config", {})
    host, port = config.get("host", "127.0.0.1"), config.get("port")
    if "listen" in values:
        if "host" in config or "port" in config:
            raise entries["listen"][1].error("listen and the config's host and port name the same", "keep one of them")
        return {}
    if not isinstance(host, str) or not (port is None or (type(port) is int and 0 <= port <= 65535)):
        return {}
    bracketed = f"[{host}]" if ":" in host else host
    return {"listen": f"{bracketed}:{default if port is None else port}", "is_default_listen": port is None}


def _value(key: str, entries: _Entries) -> Any:
    value = check(_KEYS[key], *entries[key])
    return MappingProxyType(value) if isinstance(value, dict) else value


def _standard(name: str, at: Place, values: dict[str, Any]) -> str:
    standard = name.removeprefix("iii-").replace("-", "_")
    if standard not in STANDARD_WORKERS:
        guess = did_you_mean(standard, STANDARD_WORKERS)
        hint = guess or f"workers that need none are {', '.join(STANDARD_WORKERS)}"
        raise at.error(f"the worker `{name}` has no `run`", hint)
    if values.get("instances", 1) != 1:
        raise at.inside("instances").error("a standard worker has one instance", "it owns its files")
    return standard


def _check_order(workers: Mapping[str, WorkerSpec], top: Place) -> None:
    for name, spec in workers.items():
        for index, dependency in enumerate(spec.after):
            if dependency not in workers:
                at = top.inside("workers", name, "after", index)
                hint = did_you_mean(dependency, workers) or "declare it"
                raise at.error(f"after: there is no worker `{brief(dependency)}`", hint)
    try:
        TopologicalSorter({name: spec.after for name, spec in workers.items()}).prepare()
    except CycleError as error:
        # Each name in the list comes before the one that follows, and the first is the last again.
        circle = error.args[1][:0:-1]
        first = min(range(len(circle)), key=lambda index: workers[circle[index]].line)
        circle = [*circle[first:], *circle[: first + 1]]
        index = workers[circle[0]].after.index(circle[1])
        at = top.inside("workers", circle[0], "after", index)
        shown = circle if len(circle) <= MAX_SHOWN else [*circle[:MAX_SHOWN], "...", circle[0]]
        raise at.error(f"after: {' -> '.join(shown)} is a circle", "break it") from None


def _check_lists(values: Mapping[str, Any], at: Place) -> None:
    for key, is_right, text, hint in _CLUSTER_RULES:
        for index, value in enumerate(values.get(key, ())):
            if not is_right(value):
                raise at.inside(key, index).error(f"cluster: {brief(value)} {text}", hint)
