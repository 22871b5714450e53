"""The JSON Schema of iii.toml, for editors; made from the same rows that `keys` checks with.

`#:schema ./.iii/iii.schema.json` at the top of iii.toml points at the file written here.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from iii.config_schema import load_schema
from iii.engine.config.keys import CLUSTER_KEYS, DURATION, ENGINE_KEYS, NAME, SIZE, WORKER_KEYS, Key
from iii.engine.config.project import STANDARD_WORKERS, STDLIB_WORKERS
from iii.engine.config.regular_file import open_regular
from iii.errors import ProjectError

# For git, of all that is in `.iii`: the schema is for editors, also in a clone where nothing has run yet.
IGNORED = "*\n!.gitignore\n!iii.schema.json\n"

_TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT}
_SHAPES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("string", "command", "listen", "address", "choice"), _TEXT),
    "name": {"type": "string", "pattern": f"^{NAME.pattern}$"},
    "strings": {"anyOf": [_TEXT, _TEXTS]},
    "names": _TEXTS,
    "watch": {"anyOf": [_TEXTS, {"const": False}]},
    "env": {"type": "object", "additionalProperties": _TEXT},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "duration": {"type": "string", "pattern": f"^{DURATION.pattern}$"},
    "size": {"type": "string", "pattern": f"^{SIZE.pattern}$"},
    "config": {"type": "object"},
}


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of an iii.toml."""
    workers = {
        "type": "object",
        "properties": {name: _standard_worker(name) for name in STANDARD_WORKERS},
        "additionalProperties": _object(WORKER_KEYS),
    }
    engine = _object(ENGINE_KEYS)
    engine["properties"]["listeners"] = {
        "type": "array",
        "description": "Further WebSocket listeners, each with rules of its own.",
        "items": {"type": "object", "required": ["port"]},
    }
    profile = {"type": "object", "properties": {"workers": workers}, "additionalProperties": False}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "iii.toml",
        "type": "object",
        "properties": {
            "engine": engine,
            "cluster": {**_object(CLUSTER_KEYS), "required": ["servers"]},
            "workers": workers,
            "profiles": {"type": "object", "additionalProperties": profile},
        },
        "additionalProperties": False,
    }


def _standard_worker(name: str) -> dict[str, Any]:
    """Return the schema of a table that means a standard worker, unless it has a `run`."""
    table = _object(WORKER_KEYS)
    config = load_schema(STDLIB_WORKERS, name)
    if config is not None:
        without_head = {key: value for key, value in config.items() if key not in ("$schema", "title")}
        table |= {"if": {"not": {"required": ["run"]}}, "then": {"properties": {"config": without_head}}}
    return table


def write_schema(state_dir: Path) -> Path:
    """Write the schema into the state folder (made when missing, kept out of git) and return its path.

    Raises `ProjectError` when the folder cannot be written, or is another user's or a link: nothing is written then.
    """
    path = state_dir / "iii.schema.json"
    text = json.dumps(schema(), indent=2) + "\n"
    try:
        with contextlib.suppress(FileExistsError):
            state_dir.mkdir(mode=0o700)
        status = state_dir.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise ProjectError(f"{state_dir} is not a directory of yours", hint="remove it")
        ignore = state_dir / ".gitignore"
        if not ignore.exists():
            _write(ignore, IGNORED)
        # An unchanged file is left alone: editors reload it whenever it is written.
        if not path.is_file() or path.read_text() != text:
            _write(path, text)
    except OSError as error:
        message = f"{state_dir} cannot be written: {error.strerror}"
        raise ProjectError(message, hint="it must be a writable folder of yours with room on the disk") from None
    return path


def _write(path: Path, text: str) -> None:
    with open(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", encoding="utf-8") as file:
        file.write(text)


def _object(keys: tuple[Key, ...]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for key in keys:
        properties[key.name] = shape = {**_SHAPES[key.kind], "description": key.text}
        if key.choices:
            shape["enum"] = list(key.choices)
        if key.kind == "integer":
            shape |= {"minimum": int(key.least), "maximum": int(key.most)}
    return {"type": "object", "properties": properties, "additionalProperties": False}
