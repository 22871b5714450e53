"""Every key of iii.toml as a row of data: its kind, its range, what it is for.

`check` turns a raw TOML value into what a spec holds; `json_schema` describes the same rows to editors.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from iii.config_schema import shown
from iii.durations import PATTERN, parse_duration
from iii.engine.config.toml_document import Place

# Without the days of `iii.durations`: no key takes a duration that long.
DURATION = re.compile(PATTERN)
SIZE = re.compile(r"(\d+(?:\.\d+)?)(B|KB|MB|GB|KiB|MiB|GiB)")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# Characters; splitting takes a second for a million of them.
MAX_COMMAND = 32 * 1024
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Powers of 1000 and of 1024.
_BYTES = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


class Key(Struct, frozen=True):
    """One key. `least` and `most` bound numbers, seconds and bytes, both inclusive."""

    name: str
    kind: str  # a key of _CHECKS
    text: str  # one sentence for the schema
    least: float = 0
    most: float = 0
    choices: tuple[str, ...] = ()


ENGINE_KEYS = (
    Key("listen", "listen", 'Address of the WebSocket listener, "HOST:PORT" or "off".'),
    Key("invocation_timeout", "duration", "How long a call may take by default.", 0.01, 86400),
    Key("check_results", "boolean", "Check results against the functions' schemas; by default under `iii dev` only."),
    Key("connections", "integer", "WebSockets of a listener: so many of your own, and of other users.", 1, 100_000),
    Key("namespace_grace", "duration", "How long an SDK may take to say its namespace.", 0.01, 60),
    Key("memory", "size", "What the engine may hold for all peers together: calls, messages, data.", 64e6, 10**15),
)

CLUSTER_KEYS = (
    Key("servers", "strings", "URLs of the NATS servers through which the engines find each other."),
    Key("name", "name", "Engines with the same name are one; by default the name of the project's folder."),
    Key("engine", "name", "What this engine is called; by default the name of the machine."),
    Key("labels", "strings", "What `only` of a worker may choose this engine by, beside its name."),
    Key("credentials", "string", "A NATS credentials file, relative to iii.toml."),
    Key("user", "string", "User name at the NATS servers."),
    Key("password", "string", "Password of that user."),
    Key("token", "string", "Token for the NATS servers, in place of a user."),
    Key("tls_ca", "string", "File of the authorities that the servers' certificates are checked with."),
    Key("tls_cert", "string", "File of this engine's certificate, where the servers ask for one."),
    Key("tls_key", "string", "File of the certificate's key."),
    Key("durable", "strings", "Standard workers whose data the NATS servers keep for all engines: `state`."),
    Key("monitors", "strings", "Monitoring URLs of the NATS servers, asked whether they sync every write."),
    Key("sync_always", "boolean", "Declares that every NATS server has `sync_interval: always`."),
    Key("max_bytes", "size", "What the data of each durable worker may take.", 1_000_000, 10**12),
)

# Standard workers that can keep their data in the NATS servers.
DURABLE = ("state",)

WORKER_KEYS = (
    Key("run", "string", "A .py file, or the command line of any other program (no shell)."),
    Key("after", "names", "Workers that have to be registered before this one starts."),
    Key("watch", "watch", "Globs watched beside the files the worker imports; false turns reload off."),
    Key("env", "env", "Environment variables of the worker; the shell's value wins."),
    Key("env_file", "strings", "Files of NAME=value lines, beside iii.toml."),
    Key("pass_env", "strings", "Names (globs) taken over from the shell, which passes little otherwise."),
    Key("only", "strings", "Engines of the cluster that run the worker: globs over their names and labels."),
    Key("instances", "integer", "Processes that run in parallel; each call goes to the least busy.", 1, 64),
    Key("concurrency", "integer", "Calls in flight per instance.", 1, 100_000),
    Key("restart", "choice", "When a worker starts again.", choices=("always", "on-failure", "never")),
    Key(
        "reload",
        "choice",
        "Start new code beside the old, or stop first (a worker that owns a port or a file).",
        choices=("swap", "exclusive"),
    ),
    Key("ready_timeout", "duration", "How long a start may take.", 0.1, 3600),
    Key("stop_timeout", "duration", "Grace between asking a worker to stop and killing it.", 0, 3600),
    Key("drain_timeout", "duration", "How long old code may finish its calls after a reload.", 0, 86400),
    Key("max_memory", "size", "Resident memory at which the worker is restarted.", 1_000_000, 10**15),
    Key("pre", "command", "A command run before each start."),
    Key("cwd", "string", "Working directory, relative to iii.toml."),
    Key("python", "string", "Python interpreter of a .py worker, relative to iii.toml."),
    Key("namespace", "name", "Namespace of the worker's functions."),
    Key("keep_children", "boolean", "Leave processes that the worker started running when it stops."),
    Key("validate", "boolean", "Check payloads against the functions' schemas."),
    Key("listen", "address", 'Address the worker listens on, "HOST:PORT"; it gets the socket in III_LISTEN_FDS.'),
    Key("config", "config", "Handed to the worker as JSON in III_CONFIG."),
)


def check(key: Key, value: Any, at: Place) -> Any:
    """Return `value` as a spec holds it. Raises ProjectError naming key, value and what is allowed."""
    return _CHECKS[key.kind](value, at, key)


def _string(value: Any, at: Place) -> str:
    text = at.interpolated(at.typed(value, str, "a string"))
    if "\0" in text:
        raise at.error(f"{at.name} holds a NUL character")
    if not text.strip():
        raise at.error(f"{at.name} is empty")
    return text


def _name(value: Any, at: Place) -> str:
    text = _string(value, at)
    if not NAME.fullmatch(text):
        raise at.refusal("letters, digits, `_`, `-` and `.`, at most 64", text)
    return text


def _strings(value: Any, at: Place) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_string(value, at),)
    texts = []
    for index, item in enumerate(at.typed(value, list, "a string or a list of strings")):
        if not isinstance(item, str) or not item.strip():
            raise at.inside(index).error(f"{at.name} must hold strings, got {shown(item)}")
        if "\0" in item:
            raise at.inside(index).error(f"{at.name} holds a NUL character")
        texts.append(at.inside(index).interpolated(item))
    return tuple(texts)


def _env(value: Any, at: Place) -> Mapping[str, str]:
    for name, text in at.typed(value, dict, "a table of strings").items():
        if not VARIABLE.fullmatch(name):
            raise at.inside(name).error(f"{shown(name)} is no name of a variable", "letters, digits and `_` make one")
        if name.startswith("III_"):
            raise at.inside(name).error(f"{name} is reserved", "III_ names are the engine's")
        if not isinstance(text, str):
            raise at.inside(name).refusal("a string", text, f'write "{shown(text)}"')
        if "\0" in text:
            raise at.inside(name).error(f"{name} holds a NUL character")
    return {name: at.inside(name).interpolated(text) for name, text in value.items()}


def _integer(value: Any, at: Place, key: Key) -> int:
    if type(value) is not int or not key.least <= value <= key.most:
        raise at.refusal(f"a whole number from {key.least:g} to {int(key.most)}", value)
    return value


def _choice(value: Any, at: Place, key: Key) -> str:
    if value not in key.choices:
        raise at.refusal(" or ".join(f'"{choice}"' for choice in key.choices), value)
    return str(value)


def _duration(value: Any, at: Place, key: Key) -> float:
    text = _string(value, at) if isinstance(value, str) else ""
    seconds = parse_duration(text) if DURATION.fullmatch(text) else None
    if seconds is None or not key.least <= seconds <= key.most:
        allowed = f'a duration from "{key.least:g}s" to "{key.most:g}s"'
        hint = f'write "{value}s"' if isinstance(value, int) and not isinstance(value, bool) and value > 0 else ""
        raise at.refusal(allowed, value, hint)
    return seconds


def _size(value: Any, at: Place, key: Key) -> int:
    match = SIZE.fullmatch(_string(value, at)) if isinstance(value, str) else None
    size = int(float(match[1]) * _BYTES[match[2]]) if match else None
    if size is None or not key.least <= size <= key.most:
        raise at.refusal(f'a size from "{key.least / 1e6:g}MB" to "{int(key.most / 1e9)}GB"', value)
    return size


def split_command(value: str, at: Place) -> tuple[str, ...]:
    """Return the words of a command line, interpolated after the split: a value never makes a new word."""
    if len(value) > MAX_COMMAND:
        raise at.error(f"{at.name} is longer than {MAX_COMMAND} characters", "put it into a script")
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise at.error(f"{at.name}: {str(error).lower()} in {shown(value)}") from None
    if not words or "\0" in value:
        raise at.refusal("a command line", value)
    return tuple(at.interpolated(word) for word in words)


def _listen(value: Any, at: Place) -> str:
    text = _string(value, at)
    host, colon, port = text.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1
    if text != "off" and not (host and colon and 0 <= number <= 65535):
        raise at.refusal('"HOST:PORT" with a port from 0 to 65535, or "off"', text)
    return text


def _address(value: Any, at: Place) -> str:
    text = _listen(value, at)
    if text == "off":
        raise at.refusal('"HOST:PORT" with a port from 0 to 65535', text, "leave it out")
    return text


def _json_value(value: Any, at: Place) -> Any:
    if isinstance(value, dict):
        return {name: _json_value(item, at.inside(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_json_value(item, at.inside(index)) for index, item in enumerate(value)]
    if isinstance(value, str):
        return at.interpolated(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise at.refusal("a finite number", value)
    if type(value) is int and value.bit_length() > 64:
        raise at.refusal("a number of at most 64 bits", value, "write it as a string")
    if not isinstance(value, (bool, int, float)):
        raise at.refusal("something JSON can hold", str(value), "write it as a string")
    return value


_CHECKS: dict[str, Callable[[Any, Place, Key], Any]] = {
    "string": lambda value, at, _: _string(value, at),
    "strings": lambda value, at, _: _strings(value, at),
    "name": lambda value, at, _: _name(value, at),
    "names": lambda value, at, _: _strings(at.typed(value, list, "a list of worker names"), at),
    "watch": lambda value, at, _: (
        None if value is False else _strings(at.typed(value, list, "a list of globs, or false"), at)
    ),
    "env": lambda value, at, _: _env(value, at),
    "boolean": lambda value, at, _: at.typed(value, bool, "true or false"),
    "command": lambda value, at, _: split_command(at.typed(value, str, "a command line"), at),
    "listen": lambda value, at, _: _listen(value, at),
    "address": lambda value, at, _: _address(value, at),
    "config": lambda value, at, _: _json_value(at.typed(value, dict, "a table"), at),
    "integer": _integer,
    "choice": _choice,
    "duration": _duration,
    "size": _size,
}
