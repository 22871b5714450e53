"""`iii import FILE`: an iii.toml from the public system's config.yaml or worker-compose.yaml.

Both list workers under `workers`, by name or as entries with a `name`; a compose file may say `services`. What has no
counterpart here becomes a comment in the place where it would stand. `converted` is pure.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from cli.client.errors import UsageError
from cli.commands.options import json_option
from cli.project.declarations import standard_name
from cli.text.output import shown, shown_json, write, write_error
from iii.config_schema import load_schema, mistakes
from iii.errors import ProjectError

MAX_BYTES = 256 * 1024  # of the file; the public examples have a few hundred
MAX_DEPTH = 32
MAX_SHOWN = 200  # characters of a value in a comment

# Parts of the public system that are no workers here.
BUILT_IN = ("engine_functions", "telemetry")
GATEWAY, EXEC = "worker_manager", "exec"
# The words of an entry for what a table of iii.toml says, the first that is there counts.
WORDS = {
    "run": ("run", "command", "exec"),
    "cwd": ("cwd", "working_dir", "worker_path", "path"),
    "env": ("env", "environment"),
    "after": ("after", "depends_on"),
    "namespace": ("namespace",),
    "instances": ("instances", "replicas", "scale"),
    "watch": ("watch",),
}
NAMES = ("name", "id")
LISTS = ("workers", "services")
GRACE, MIN_GRACE, MAX_GRACE = "registration_namespace_grace_ms", 10, 60_000


@click.command("import")
@click.argument("source", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def command(source: Path, as_json: bool) -> None:
    """Write an iii.toml beside FILE, a config.yaml or worker-compose.yaml. An iii.toml is never overwritten."""
    from iii.engine.config.project import PROJECT_FILE, load_project  # keeps `--help` light

    target = source.parent / PROJECT_FILE
    text, comments = converted(read_yaml(source), source.name)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{target} exists already", "move it away, or import in a folder without it") from None
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}") from None
    missing = ""
    try:
        load_project(target, environ=os.environ)
    except ProjectError as error:
        missing = str(error)
    if as_json:
        write(shown_json({"file": str(target), "comments": comments, "missing": missing or None}))
        return
    write(f"wrote {target}")
    for comment in comments:
        write_error(f"warning: {shown(comment)}")
    if missing:
        write_error(f"still to be filled in: {shown(missing)}")


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds. Raises UsageError for one that is too large, too deep, or none."""
    import yaml  # type: ignore[import-untyped]  # keeps `--help` light

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise UsageError(f"{path} has more than {MAX_BYTES} bytes")
        # A few lines of aliases can stand for more values than fit into the memory.
        depth = 0
        for event in yaml.parse(data, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise UsageError(f"{path}:{event.start_mark.line + 1}: aliases (*{event.anchor}) are not read")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise UsageError(f"{path}:{event.start_mark.line + 1} nests deeper than {MAX_DEPTH} tables and lists")
        return yaml.safe_load(data)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def converted(document: Any, name: str) -> tuple[str, list[str]]:
    """Return the text of an iii.toml, and what stands in it as comments. Raises UsageError for no such document."""
    lists = [document[key] for key in LISTS if document.get(key) is not None] if isinstance(document, dict) else []
    if not lists or not all(isinstance(each, (dict, list)) for each in lists):
        raise UsageError(f"{name} has no list `workers`", "it has to be a config.yaml or worker-compose.yaml")
    toml = _Toml()
    toml.lines += ["#:schema ./.iii/iii.schema.json", f"# From {name}. `iii check` validates this file.", ""]
    others = {key: value for key, value in document.items() if key not in LISTS}
    grace = others.pop(GRACE, None)
    entries = [entry for each in lists for entry in _entries(each)]
    gateways = [(worker, entry) for worker, entry in entries if standard_name(worker) == GATEWAY]
    _engine(toml, grace, [_config_of(toml, *gateway) for gateway in gateways])
    for key, value in others.items():
        toml.leave_out(str(key), value, "iii.toml has no such key")
    for worker, entry in entries:
        if standard_name(worker) != GATEWAY:
            _worker(toml, worker, entry)
    return "\n".join(toml.lines).rstrip() + "\n", toml.comments


def _entries(workers: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and entry of each worker, of a table by names or of a list."""
    if isinstance(workers, dict):
        named = list(workers.items())
    else:
        named = [(entry, {}) if isinstance(entry, str) else (_name_of(entry), entry) for entry in workers]
    for name, entry in named:
        if not isinstance(entry or {}, dict):
            raise UsageError(f"the worker {shown(str(name))} must be a table, got {shown(str(entry)[:MAX_SHOWN])}")
        fields = {str(key): value for key, value in (entry or {}).items()}
        yield str(name), {key: value for key, value in fields.items() if key not in NAMES or value != name}


def _name_of(entry: Any) -> Any:
    name = next((entry[key] for key in NAMES if entry.get(key)), None) if isinstance(entry, dict) else None
    if name is None:
        raise UsageError(f"a worker has no name: {shown(str(entry)[:MAX_SHOWN])}")
    return name


def _config_of(toml: _Toml, name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Take the config out of an entry."""
    config = _plain(entry.pop("config", None) or {})
    if isinstance(config, dict):
        return config
    toml.leave_out(f"{name}.config", config, "it must be a table")
    return {}


def _engine(toml: _Toml, grace: Any, gateways: list[Any]) -> None:
    """Write [engine]: its listener without rules is the engine's own, others are further ones."""
    engine: dict[str, Any] = {}
    listeners = []
    for gateway in gateways:
        host, port = gateway.get("host") or "127.0.0.1", gateway.get("port") or 49134
        if "rbac" in gateway or "listen" in engine:
            listeners.append({**gateway, "host": host, "port": port})
        else:
            engine["listen"] = f"{host}:{port}"
            for key in gateway.keys() - {"host", "port"}:
                toml.leave_out(f"{GATEWAY}.config.{key}", gateway[key], "the engine's listener has no such key")
    if type(grace) in (int, float) and MIN_GRACE <= grace <= MAX_GRACE:
        engine["namespace_grace"] = f"{grace:g}ms"
    elif grace is not None:
        toml.leave_out(GRACE, grace, f"it must be from {MIN_GRACE} to {MAX_GRACE} milliseconds")
    if engine:
        toml.table(("engine",), engine)
    for listener in listeners:
        known = {key: listener[key] for key in ("port", "host", "middleware_function_id", "rbac") if key in listener}
        for key in listener.keys() - known.keys():
            toml.leave_out(f"{GATEWAY}.config.{key}", listener[key], "a listener has no such key")
        toml.table(("engine", "listeners"), known, is_list=True)


def _worker(toml: _Toml, name: str, entry: dict[str, Any]) -> None:
    from iii.engine.config.project import STANDARD_WORKERS, STDLIB_WORKERS  # keeps `--help` light

    standard = standard_name(name)
    config = _config_of(toml, name, entry)
    if standard in BUILT_IN:
        toml.leave_out(name, {**entry, "config": config}, "it is part of the engine")
    elif standard == EXEC:
        written = config.get("exec") or []
        commands = [str(line) for line in (written if isinstance(written, list) else [written])]
        table: dict[str, Any] = {"watch": config["watch"]} if config.get("watch") else {}
        if commands[:-1]:
            table["pre"] = shlex.join(["sh", "-c", " && ".join(f"({line})" for line in commands[:-1])])
        table["run"] = shlex.join(["sh", "-c", commands[-1]]) if commands else ""
        toml.table(("workers", "exec"), table)
    elif standard in STANDARD_WORKERS:
        for key, value in entry.items():
            toml.leave_out(f"{name}.{key}", value, "a standard worker has no such key")
        schema = load_schema(STDLIB_WORKERS, standard) or {}
        toml.table(("workers", standard), {"config": _fitting(toml, name, config, schema)} if config else {})
    else:
        _own_worker(toml, name, entry, config)


def _own_worker(toml: _Toml, name: str, entry: dict[str, Any], config: Any) -> None:
    found = {ours: next((entry.pop(word) for word in words if word in entry), None) for ours, words in WORDS.items()}
    table = {key: _plain(value) for key, value in found.items() if value is not None}
    if isinstance(run := table.get("run"), list):
        table["run"] = shlex.join(map(str, run))
    env = found["env"]
    if isinstance(env, list):
        lines = [str(line).partition("=") for line in env]
        env = {key: value if equals else None for key, equals, value in lines}
    if isinstance(env, dict):
        for reserved in [key for key in env if str(key).startswith("III_")]:
            toml.leave_out(f"{name}.env.{reserved}", env.pop(reserved), "III_ names are the engine's")
        # A name without a value stands for the shell's.
        table["pass_env"] = [str(key) for key, value in env.items() if value is None]
        values = _plain(env).items()
        table["env"] = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values}
        table = {key: value for key, value in table.items() if value or key not in ("env", "pass_env")}
    if isinstance(after := table.get("after"), (dict, list)):
        table["after"] = [standard_name(word) if word.startswith("iii-") else word for word in map(str, after)]
    if config:
        table["config"] = config
    for key, value in entry.items():
        toml.leave_out(f"{name}.{key}", value, "a worker has no such key here")
    if "run" not in table:
        toml.leave_out(f"{name}.run", "", "nothing here says what starts this worker: fill in `run`")
        table = {"run": "", **table}
    toml.table(("workers", name), table)


def _fitting(toml: _Toml, name: str, config: Any, schema: Mapping[str, Any]) -> Any:
    """Return the config without what the worker's schema refuses; that becomes comments."""
    wrong = next(mistakes(config, schema), None)
    while wrong is not None:
        holder: Any = config
        for step in wrong.path[:-1]:
            holder = holder[step]
        key = wrong.path[-1]
        is_missing = isinstance(holder, dict) and key not in holder
        if wrong.path[0] == "adapter":
            # What is stored where is one decision: without its name the rest of an adapter means nothing.
            holder, key, is_missing = config, "adapter", False
        if is_missing:
            break  # `iii check` names it
        value = holder.pop(key)
        toml.leave_out(f"{name}.config.{'.'.join(map(str, wrong.path))}", value, wrong.message)
        default = _default_of(value)
        if isinstance(holder, dict) and default is not None and not isinstance(default, str):
            holder[key] = default  # the variable's text would stay text here
            if any(other.path == wrong.path for other in mistakes(config, schema)):
                del holder[key]
        wrong = next(mistakes(config, schema), None)
    return config


def _default_of(value: Any) -> Any:
    """Return the default of `${NAME:default}` as JSON reads it, None for any other text."""
    if not (isinstance(value, str) and value.startswith("${") and value.endswith("}") and ":" in value):
        return None
    try:
        return json.loads(value[2:-1].partition(":")[2].removeprefix("-"))
    except ValueError:
        return None


def _plain(value: Any) -> Any:
    """Return a YAML value as iii.toml can hold it: without nulls, keys and dates as texts."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value if item is not None]
    return value if isinstance(value, (str, bool, int, float)) else str(value)


class _Toml:
    """The lines of a file, and what was left out of it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.comments: list[str] = []

    def leave_out(self, name: str, value: Any, why: str) -> None:
        """Write a comment in the place of a value."""
        text = json.dumps(value, default=str, ensure_ascii=False)
        cut = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
        self.comments.append(f"{name}: {why}")
        self.lines += [f"# {shown(f'{name} = {cut}')}: {shown(why)}"]

    def table(self, path: tuple[str, ...], values: Mapping[str, Any], *, is_list: bool = False) -> None:
        """Write a table, then the tables inside of it."""
        header = ".".join(map(_key, path))
        inside = {} if is_list else {key: value for key, value in values.items() if isinstance(value, dict)}
        plain = {key: value for key, value in values.items() if key not in inside}
        if plain or not inside:
            self.lines += [f"[[{header}]]" if is_list else f"[{header}]"]
            self.lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
            self.lines.append("")
        for key, value in inside.items():
            self.table((*path, key), value)


def _key(name: str) -> str:
    import tomlkit  # keeps `--help` light

    return tomlkit.key(name).as_string()


def _value(value: Any) -> str:
    import tomlkit  # keeps `--help` light

    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(tomlkit.item(value).as_string())
