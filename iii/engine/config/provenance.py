"""Every value that a project is run with, and where it comes from: a line of iii.toml, variables, or a default.

For those who look at it (`iii check --values`, `engine::config::list`): no secret is in what comes out of here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from iii.config_schema import load_schema
from iii.engine.config.cautions import cautions_of
from iii.engine.config.environment import environment_of, variables_of
from iii.engine.config.keys import CLUSTER_KEYS, ENGINE_KEYS, WORKER_KEYS, Key
from iii.engine.config.project import STANDARD_WORKERS, STDLIB_WORKERS, load_project
from iii.engine.config.references import with_values
from iii.engine.config.regular_file import read_regular
from iii.engine.config.spec import ClusterSpec, EngineSpec, ProjectSpec, WorkerSpec
from iii.engine.config.toml_document import MAX_SIZE, Place, read_document
from iii.engine.config.toml_positions import KeyPath
from iii.errors import ProjectError
from iii.redaction import REDACTED, Redactor, is_secret_name, secrets_in

# Values that are listed, and characters or items of one: more than a file written by hand has.
MAX_VALUES, MAX_LONG = 5000, 2000

_Variables = Mapping[str, tuple[str, str]]  # name -> value, source
# What a message quotes of a value.
_QUOTE = re.compile(r", got .*|`[^`]*`(?= is no value)", re.DOTALL)


class Leaf(Struct, frozen=True):
    """One value of the file and where it stands."""

    value: Any
    place: Place


def configuration_of(
    file: Path, environ: Mapping[str, str], profile: str | None = None, worker: str | None = None
) -> dict[str, Any]:
    """Return `{"file", "profile", "values", "left_out", "mistakes", "cautions"}` of a project file as it is now.

    A value has `key`, `table`, `value`, `description` and `source`: `default`, or `file` or `environment` with `file`,
    `line`, `column` and the `variables` it is made of. With `worker` only its values, and its `environment` by name.
    Raises KeyError for a worker that is not declared.
    """
    mistakes: list[ProjectError] = []
    project: ProjectSpec | None = None
    try:
        project = load_project(file, environ=environ, profile=profile, is_check=True)
    except ProjectError as error:
        mistakes = [error, *error.others]
    try:
        variables: _Variables = variables_of(file.parent, environ)
    except ProjectError:  # one of the mistakes
        variables = {name: (value, "shell") for name, value in environ.items()}
    try:
        top: Place | None = read_document(file, {name: value for name, (value, _) in variables.items()}.get)
    except ProjectError:
        top = None
    data = {} if top is None else top.document.data
    text = _text_of(file)
    # Of the shell's variables those that the file names: PWD, for one, is no secret of the project.
    named = {name: value for name, (value, source) in variables.items() if source != "shell" or f"${{{name}" in text}
    hiding = Hiding(Redactor(secrets_in([*_nameless(data), named])))
    workers = _workers(data, project, file.parent)
    answer: dict[str, Any] = {"file": str(file), "profile": profile}
    if worker is not None:
        if top is not None and worker not in workers:
            raise KeyError(worker)
        spec = None if project is None else project.workers[worker]
        answer["environment"] = {} if spec is None or project is None else _environment(spec, project, environ, hiding)
    written = {} if top is None else _written(top, profile)
    given = {path[:length] for path in written for length in range(1, len(path) + 1)}
    found: dict[KeyPath, Any] = {
        **written,
        **{path: value for path, value in _defaults(workers, project) if path not in given},
    }
    paths = [path for path in found if worker is None or path[:2] == ("workers", worker)]
    about = dict(_descriptions(workers))
    return answer | {
        "values": [
            {
                "key": ".".join(map(str, path)),
                "table": _table(path),
                "description": about.get(path, ""),
                **(
                    _of_file(path, found[path], variables, hiding)
                    if path in written
                    else {"value": hiding(_names(path), found[path]), "source": "default"}
                ),
            }
            for path in paths[:MAX_VALUES]
        ],
        "left_out": max(0, len(paths) - MAX_VALUES),
        "mistakes": [_mistake(error, text.split("\n"), hiding) for error in mistakes],
        "cautions": [] if project is None else cautions_of(project, environ),
    }


class Hiding:
    """Takes secrets out of values: by the names they stand under, and wherever they turn up again."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(self, names: tuple[str, ...], value: Any) -> Any:
        """Return a JSON value that stands under these names as it may be shown."""
        if value is not None and not isinstance(value, bool) and any(map(is_secret_name, names)):
            return REDACTED
        return self._cut(self._redactor.value(value))

    def text(self, text: str) -> str:
        """Return a text as it may be shown."""
        return self._redactor(text)

    def _cut(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._cut(item) for item in value[:MAX_LONG]]
        if not isinstance(value, str):
            return value if value is None or isinstance(value, bool | int | float) else str(value)
        text = self._redactor(value)
        return text if len(text) <= MAX_LONG else f"{text[:MAX_LONG]}..."


def _written(top: Place, profile: str | None) -> dict[KeyPath, Leaf]:
    leaves = {path: Leaf(value, top.inside(*path)) for path, value in _leaves(top.document.data, ())}
    chosen = {path[2:]: leaf for path, leaf in leaves.items() if path[:3] == ("profiles", profile, "workers")}
    # An entry of the profile replaces the whole of the worker's.
    replaced = {path[:3] for path in chosen}
    kept = {path: leaf for path, leaf in leaves.items() if path[0] != "profiles" and path[:3] not in replaced}
    return kept | chosen


def _of_file(path: KeyPath, leaf: Leaf, variables: _Variables, hiding: Hiding) -> dict[str, Any]:
    used: dict[str, str] = {}
    value = _interpolated(leaf.value, variables, used)
    line, column = leaf.place.document.positions.of(leaf.place.path)
    return {
        "value": hiding((*_names(path), *used), value),
        "source": "environment" if used else "file",
        "file": leaf.place.document.file,
        "line": line,
        "column": column,
        **({"variables": [{"name": name, "source": source} for name, source in used.items()]} if used else {}),
    }


def _leaves(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    else:
        yield path, value


def _interpolated(value: Any, variables: _Variables, used: dict[str, str]) -> Any:
    """Return the value with its variables replaced, as it stands where one is not set; notes them in `used`."""
    if isinstance(value, list):
        return [_interpolated(item, variables, used) for item in value]
    if not isinstance(value, str):
        return value

    def look_up(name: str) -> str | None:
        value, source = variables.get(name, (None, "not set"))
        used[name] = source
        return value

    try:
        return with_values(value, look_up, lambda message, hint: ProjectError(message, hint=hint))
    except ProjectError:
        return value


def _nameless(value: Any) -> Iterator[Any]:
    """Yield the tables to look for secrets in, without the names of workers: such a name may be any word."""
    for name, table in value.items() if isinstance(value, dict) else ():
        if name == "profiles" and isinstance(table, dict):
            for profile in table.values():
                yield from _nameless(profile)
        elif name == "workers" and isinstance(table, dict):
            yield from table.values()
        else:
            yield table


def _workers(data: Mapping[str, Any], project: ProjectSpec | None, root: Path) -> dict[str, WorkerSpec]:
    """Return the workers; of a file with mistakes their names, with what would hold by default."""
    if project is not None:
        return dict(project.workers)
    declared = data.get("workers")
    names = declared if isinstance(declared, dict) else {}
    standard = {name: name.removeprefix("iii-").replace("-", "_") for name in names}
    return {
        name: WorkerSpec(name, root, standard=standard[name] if standard[name] in STANDARD_WORKERS else None)
        for name in names
    }


def _defaults(workers: Mapping[str, WorkerSpec], project: ProjectSpec | None) -> Iterator[tuple[KeyPath, Any]]:
    tables: list[tuple[KeyPath, tuple[Key, ...], EngineSpec | ClusterSpec | WorkerSpec]] = [
        (("engine",), ENGINE_KEYS, EngineSpec() if project is None else project.engine)
    ]
    if project is not None and project.cluster is not None:
        tables.append((("cluster",), CLUSTER_KEYS, project.cluster))
    tables += [(("workers", name), WORKER_KEYS, spec) for name, spec in workers.items()]
    for table, keys, spec in tables:
        for key in keys:
            if (value := _as_written(key, getattr(spec, key.name, None))) is not None:
                yield (*table, key.name), value
    for path, part in _config_parts(workers):
        if "default" in part:
            yield path, part["default"]


def _as_written(key: Key, value: Any) -> Any:
    """Return a value of a spec as iii.toml would say it; None for one that it need not."""
    if value is None or value in ((), "") or key.kind in ("config", "env"):
        return None
    if key.kind == "duration":
        return f"{value:g}s"
    if key.kind == "size":
        return f"{value / 1e6:g}MB"
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def _config_parts(workers: Mapping[str, WorkerSpec]) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    for name, spec in workers.items():
        if spec.standard is not None:
            yield from _parts(load_schema(STDLIB_WORKERS, spec.standard) or {}, ("workers", name, "config"))


def _parts(schema: Mapping[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    for name, part in schema.get("properties", {}).items():
        yield (*path, name), part
        yield from _parts(part, (*path, name))


def _descriptions(workers: Mapping[str, WorkerSpec]) -> Iterator[tuple[KeyPath, str]]:
    yield from ((("engine", key.name), key.text) for key in ENGINE_KEYS)
    yield from ((("cluster", key.name), key.text) for key in CLUSTER_KEYS)
    yield from ((("workers", name, key.name), key.text) for name in workers for key in WORKER_KEYS)
    yield from ((path, part.get("description", "")) for path, part in _config_parts(workers))


def _environment(
    spec: WorkerSpec, project: ProjectSpec, environ: Mapping[str, str], hiding: Hiding
) -> dict[str, dict[str, Any]]:
    merged = environment_of(spec, project, environ)
    return {name: {"value": hiding((name,), value), "source": source} for name, (value, source) in merged.items()}


def _mistake(error: ProjectError, lines: list[str], hiding: Hiding) -> dict[str, Any]:
    message, hint = error.message, error.hint
    # A message quotes what is wrong, at times only its beginning.
    line = lines[error.line - 1] if 0 < error.line <= len(lines) else ""
    if is_secret_name(line.partition("=")[0]) or any(map(is_secret_name, error.key.split(".")[2:])):
        message, hint = _QUOTE.sub("", message).strip(), ""
    hidden = ProjectError(
        hiding.text(message),
        file=error.file,
        line=error.line,
        column=error.column,
        key=error.key,
        hint=hiding.text(hint),
    )
    return {
        "text": str(hidden),
        **{name: getattr(hidden, name) for name in ("message", "file", "line", "column", "key", "hint")},
    }


def _text_of(file: Path) -> str:
    try:
        return read_regular(file, MAX_SIZE).decode("utf-8-sig", "replace")
    except OSError:
        return ""


def _table(path: KeyPath) -> str:
    """Return the table of iii.toml that a value is in, of a worker's config that one."""
    if path[0] != "workers":
        return str(path[0])
    return ".".join(map(str, path[: 3 if len(path) > 3 and path[2] == "config" else 2]))


def _names(path: KeyPath) -> tuple[str, ...]:
    """Return the names that say whether a value is a secret: a worker may be called as it likes."""
    return tuple(map(str, path[2:] if path[0] == "workers" else path[1:]))
