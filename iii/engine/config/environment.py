"""The environment of a worker: one order, printed on request by `iii env`.

reserved III_* > shell > worker `env` > worker `env_file` > `.env.local` > `.env`. From the shell only a short list and
the names that the project declares pass: no secret reaches a worker by accident. What only a running engine knows
(III_URL, III_RUN_ID, ...) is added by the run context.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import translate
from functools import cache
from pathlib import Path
from types import MappingProxyType

from iii.engine.config.references import with_values
from iii.engine.config.regular_file import read_regular
from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.errors import ProjectError

# Beside iii.toml, strongest first; both are optional.
ENV_FILES = (".env.local", ".env")
RESERVED_PREFIX = "III_"
MAX_ENV_FILE = 1024 * 1024  # bytes; the kernel hands a program little more than that

# What any program may need to find its files, its language and its terminal; nothing here is a secret.
PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "COLORTERM", "LANG", "LC_*", "TZ", "TMPDIR"),
    *("VIRTUAL_ENV", "XDG_RUNTIME_DIR", "SSL_CERT_*"),
)

_NONE: Mapping[str, str] = MappingProxyType({})
# The beginning of a line whose value stands in single quotes.
_LITERAL = re.compile(r"^\s*(?:export\s+)?[^=]*=\s*'")

Layer = tuple[str, Mapping[str, str]]  # where the values come from, the values


def environment_of(spec: WorkerSpec, project: ProjectSpec, environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return name -> (value, source) for one worker, sorted by name. `environ` is the shell's.

    Sources are `reserved`, `shell`, `env` and names of files. Reads the env files; raises ProjectError.
    """
    layers: list[Layer] = []
    # The weakest first: a file may refer to what weaker ones set.
    known: dict[str, str] = {}
    for name in reversed(ENV_FILES):
        layers.append((name, read_env_file(project.root / name, known | dict(environ), optional=True)))
        known.update(layers[-1][1])
    for file in spec.env_files:
        shown = file.relative_to(project.root) if file.is_relative_to(project.root) else file
        layers.append((str(shown), read_env_file(file, known | dict(environ))))
        known.update(layers[-1][1])
    layers.append(("env", spec.env))
    layers.reverse()
    # The engine's own variables, as far as the project file alone decides them.
    reserved = {
        "III_CONFIG": json.dumps(spec.config, default=dict, separators=(",", ":")),
        "III_NAMESPACE": spec.namespace,
        "III_WORKER_NAME": spec.name,
        "PYTHONUNBUFFERED": "1",
        **({"III_DEBUG": spec.debug} if spec.debug else {}),
    }
    return merge(reserved, environ, layers, spec.pass_env)


def variables_of(root: Path, environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return name -> (value, source) of what `${NAME}` in iii.toml stands for: the shell, `.env.local`, `.env`.

    Raises ProjectError for a wrong .env file.
    """
    variables: dict[str, tuple[str, str]] = {}
    for file in reversed(ENV_FILES):
        known = {name: value for name, (value, _) in variables.items()} | dict(environ)
        found = read_env_file(root / file, known, optional=True)
        variables.update((name, (value, file)) for name, value in found.items())
    return variables | {name: (value, "shell") for name, value in environ.items()}


def environments_of(project: ProjectSpec, environ: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return name -> value for each worker, to see which workers a changed .env file concerns. Raises ProjectError."""
    return {
        name: {key: value for key, (value, _) in environment_of(spec, project, environ).items()}
        for name, spec in project.workers.items()
    }


def merge(
    fixed: Mapping[str, str], environ: Mapping[str, str], layers: Iterable[Layer], pass_env: Iterable[str]
) -> dict[str, tuple[str, str]]:
    """Lay the sources over each other; `layers` begin with the strongest. Pure."""
    merged: dict[str, tuple[str, str]] = {}
    for source, values in reversed(list(layers)):
        merged.update((name, (value, source)) for name, value in values.items())
    is_passed = _matcher((*PASSED, *pass_env))
    for name, value in environ.items():
        if name in merged or is_passed(name):
            merged[name] = (value, "shell")
    kept = {name: pair for name, pair in merged.items() if not name.startswith(RESERVED_PREFIX)}
    kept.update((name, (value, "reserved")) for name, value in fixed.items())
    return dict(sorted(kept.items()))


@cache
def _matcher(globs: tuple[str, ...]) -> Callable[[str], object]:
    """Return a predicate for any of the globs: one match for each name, however many globs there are."""
    return re.compile("|".join(map(translate, globs))).match


def read_env_file(path: Path, known: Mapping[str, str] = _NONE, *, optional: bool = False) -> dict[str, str]:
    """Return the variables of a .env file. Raises ProjectError with the wrong line.

    `${NAME}` is replaced as in iii.toml, by `known` (the shell's and those of weaker files) or an earlier line of the
    file; a value in single quotes stays as it is.
    """
    text = _text_of(path, optional=optional)
    if not text:
        return {}
    from dotenv.parser import parse_stream  # only projects with env files pay for it

    values: dict[str, str] = {}

    def refuse(message: str, hint: str) -> ProjectError:
        kept = "single quotes keep a value as it is"
        return ProjectError(message, file=path.name, line=line, hint=f"{hint}; {kept}" if hint else kept)

    for binding in parse_stream(io.StringIO(text)):
        line = binding.original.line
        if binding.error:
            raise ProjectError("this is not NAME=value", file=path.name, line=line, column=1)
        if binding.key is not None:
            value = binding.value or ""
            if "${" in value and not _LITERAL.search(binding.original.string):
                value = with_values(value, lambda name: known.get(name, values.get(name)), refuse)
            values[binding.key] = value
    return values


def _text_of(path: Path, *, optional: bool) -> str:
    try:
        data = read_regular(path, MAX_ENV_FILE)
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        if optional:
            return ""
        raise ProjectError("cannot be read: there is no such file", file=path.name) from None
    except OSError as error:
        raise ProjectError(f"cannot be read: {error.strerror}", file=path.name) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProjectError(f"the byte 0x{data[error.start]:02x} is not UTF-8", file=path.name, line=line) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ProjectError("a variable cannot hold a NUL character", file=path.name, line=line)
    return text
