"""The cut of docs/architecture.md, held by the syntax trees of the source: rooms, and imports that run one way.

A folder is a room. `ROOMS` is the whole policy: what a room may import, and which of its modules are pure. `violations`
takes paths and sources, so the small fake trees below show that every rule can fail; the last tests apply it to the
project itself.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("iii", "cli", "stdlib_workers", "iii_engine")
MAX_LINES = 600
MAX_MODULES = 20  # in one folder, `__init__.py` not counted

EVERY = frozenset({"*"})


@dataclass(frozen=True)
class Room:
    """One folder, or a single file that has a place of its own.

    `pure`: modules in which nothing waits, reads a clock or touches the system; `EVERY` for all of the room.
    `is_light`: imports at module level come from the standard library or the project.
    """

    may_import: tuple[str, ...] = ()
    pure: frozenset[str] = frozenset()
    is_light: bool = False


BASE = (
    *(
        "iii/arguments.py",
        "iii/config_schema.py",
        "iii/declarations.py",
        "iii/durations.py",
        "iii/errors.py",
        "iii/failure_text.py",
        "iii/ids.py",
        "iii/nats_options.py",
        "iii/one_time_keys.py",
        "iii/protocol/shape.py",
        "iii/redaction.py",
        "iii/suggestions.py",
        "iii/version.py",
    ),
)
# What a standard worker may import beside `iii` itself.
PUBLIC_MODULES = (
    "iii/arguments.py",
    "iii/config_schema.py",
    "iii/declarations.py",
    "iii/durations.py",
    "iii/failure_text.py",
    "iii/nats_options.py",
    "iii/one_time_keys.py",
    "iii/protocol/shape.py",
    "iii/redaction.py",
    "iii/suggestions.py",
)
_SHARED = ("attempts", "storage", "values")  # rooms of their own: the command line copies stores as their workers do
_E = "iii/engine"
_W = "iii/worker"
_SDK = tuple(f"{_W}/{name}" for name in ("api", "calls", "channels.py", "codec", "context", "functions", "transport"))

# The longest entry that fits places a module. An entry may import itself and what it names.
ROOMS: dict[str, Room] = {
    **dict.fromkeys(BASE, Room(BASE, pure=EVERY, is_light=True)),
    "iii/protocol": Room(BASE, pure=EVERY),
    # The SDK, from the bottom up. It and the engine never import each other.
    f"{_W}/transport": Room((*BASE, "iii/protocol"), frozenset({"websocket_frames"}), is_light=True),
    f"{_W}/codec": Room((*BASE, "iii/protocol"), is_light=True),
    f"{_W}/api": Room((*BASE, f"{_W}/codec"), frozenset({"requests"}), is_light=True),
    f"{_W}/context": Room((*BASE, f"{_W}/codec"), is_light=True),
    f"{_W}/functions": Room((*BASE, f"{_W}/codec"), frozenset({"conversion", "schema"}), is_light=True),
    f"{_W}/calls": Room((*BASE, f"{_W}/api", f"{_W}/codec", f"{_W}/context"), is_light=True),
    f"{_W}/channels.py": Room((*BASE, "iii/protocol", f"{_W}/transport"), is_light=True),
    f"{_W}/handlers": Room(
        (*BASE, f"{_W}/api", f"{_W}/codec", f"{_W}/functions"), frozenset({"arguments", "places"}), is_light=True
    ),
    f"{_W}/flows": Room((*BASE, *_SDK, f"{_W}/handlers"), frozenset({"endings", "progress"}), is_light=True),
    f"{_W}/runtime": Room((*BASE, *_SDK), is_light=True),
    _W: Room((*BASE, *_SDK, f"{_W}/flows", f"{_W}/handlers", f"{_W}/runtime"), is_light=True),
    "iii": Room((*BASE, "iii/protocol", _W, f"{_W}/flows", f"{_W}/handlers", *_SDK), is_light=True),
    # The engine of users' tests joins what `iii dev` starts as processes: engine, SDK and standard workers.
    "iii/testing": Room(
        (
            *(*BASE, "iii", "iii/protocol", _W, *_SDK, f"{_W}/runtime", _E),
            *(f"{_E}/{name}" for name in ("builtins", "channels", "config", "observing", "routing")),
            *(f"{_E}/{name}" for name in ("supervision", "terminal", "tracing", "transport")),
            *("stdlib_workers", "stdlib_workers/cron", "stdlib_workers/storage"),
        )
    ),
    # The engine, from the bottom up.
    f"{_E}/tracing": Room((*BASE, "iii/protocol"), EVERY),
    f"{_E}/routing": Room((*BASE, "iii/protocol", f"{_E}/tracing"), EVERY),
    f"{_E}/observing": Room((*BASE, "iii/protocol", f"{_E}/routing", f"{_E}/tracing"), EVERY),
    f"{_E}/security": Room((*BASE, "iii/protocol"), frozenset({"admission", "rbac", "sanitize"})),
    f"{_E}/config": Room((*BASE, f"{_E}/security"), EVERY),
    f"{_E}/reload": Room((f"{_E}/config",), frozenset({"dependency_graph", "globs"})),
    f"{_E}/transport": Room((*BASE, "iii/protocol", f"{_E}/routing"), frozenset({"websocket_frames"})),
    f"{_E}/health": Room(
        (*BASE, "iii/protocol", f"{_E}/routing", f"{_E}/transport"),
        frozenset({"foreign_readiness", "liveness"}),
    ),
    f"{_E}/channels": Room((*BASE, "iii/protocol", f"{_E}/routing"), frozenset({"channel"})),
    f"{_E}/run_tag.py": Room(),
    f"{_E}/supervision": Room(
        (*BASE, f"{_E}/config", f"{_E}/run_tag.py"),
        frozenset(
            {
                "lifecycle",
                "replacement",
                "reports",
                "restart_policy",
                "run",
                "stack_traces",
                "start_order",
                "stderr_lines",
            }
        ),
    ),
    f"{_E}/telemetry": Room(
        (*BASE, "iii/protocol", *(f"{_E}/{name}" for name in ("routing", "security", "supervision", "tracing"))),
        frozenset({"log_records", "metrics", "span_records"}),
    ),
    f"{_E}/builtins": Room(
        (
            *(*BASE, "iii/protocol"),
            *(f"{_E}/{name}" for name in ("observing", "routing", "security", "telemetry", "transport")),
        ),
        frozenset({"identity", "introspection"}),
    ),
    f"{_E}/gateway": Room(
        (
            *(*BASE, "iii/protocol"),
            *(f"{_E}/{name}" for name in ("builtins", "channels", "routing", "security", "transport")),
        )
    ),
    f"{_E}/cluster": Room(
        (*BASE, "iii/protocol", f"{_E}/config", f"{_E}/routing"),
        frozenset({"announcements", "engines", "frames", "link", "remote", "requirements"}),
    ),
    f"{_E}/terminal": Room((f"{_E}/config", f"{_E}/security", f"{_E}/supervision")),
    f"{_E}/boot": Room((*BASE, *(f"{_E}/{name}" for name in ("config", "run_tag.py", "supervision", "transport")))),
    _E: Room(
        (
            *(*BASE, "iii/protocol"),
            *(f"{_E}/{name}" for name in ("boot", "builtins", "channels", "cluster", "config", "gateway", "health")),
            f"{_E}/reload",
            *(f"{_E}/{name}" for name in ("observing", "routing", "security", "supervision", "telemetry")),
            *(f"{_E}/{name}" for name in ("terminal", "transport")),
        )
    ),
    # The command line, from the bottom up.
    "cli/text": Room(),
    "cli/client": Room((*BASE, "cli/text")),
    "cli/trigger": Room((*BASE, "cli/client", "cli/text")),
    "cli/commands": Room(
        (
            *BASE,
            "cli/client",
            "cli/text",
            "cli/trigger",
            _E,
            f"{_E}/boot",
            f"{_E}/config",
            f"{_E}/terminal",
            "stdlib_workers/cron",
        )
    ),
    "cli/observe": Room((*BASE, "cli/client", "cli/commands", "cli/text", f"{_E}/supervision", f"{_E}/terminal")),
    "cli/project": Room(
        (
            *BASE,
            "cli/client",
            "cli/commands",
            "cli/text",
            f"{_E}/boot",
            f"{_E}/config",
            f"{_E}/supervision",
            f"{_E}/transport",
            "stdlib_workers/storage",
        )
    ),
    "cli/stubs": Room(
        (*BASE, "cli/client", "cli/commands", "cli/text", f"{_E}/config"),
        frozenset({"comparison", "python", "shapes", "signatures", "typescript"}),
    ),
    "cli": Room((*BASE, "cli/client", "cli/commands", "cli/trigger")),
    # Narrowed by `_standard_worker`; the command line reads cron expressions as the cron worker does.
    "stdlib_workers/values": Room((*PUBLIC_MODULES, "iii")),
    "stdlib_workers/attempts": Room((*PUBLIC_MODULES, "iii"), pure=EVERY),
    "stdlib_workers/storage": Room((*PUBLIC_MODULES, "iii", "stdlib_workers/values")),
    "stdlib_workers": Room(
        (*PUBLIC_MODULES, "iii", *(f"stdlib_workers/{name}" for name in _SHARED), "stdlib_workers/cron")
    ),
    "stdlib_workers/cron": Room(
        (*PUBLIC_MODULES, "iii", *(f"stdlib_workers/{name}" for name in _SHARED), "stdlib_workers")
    ),
    # What is installed, and where it looks for all of this.
    "iii_engine": Room(("cli", "iii/testing")),
}

# Shared by several standard workers; these packages are no workers.
SHARED_BY_STANDARD_WORKERS = tuple(
    f"stdlib_workers.{name}" for name in ("attempts", "egress", "storage", "events", "loopback", "values")
)

# What makes a decision depend on anything but its arguments.
FORBIDDEN_IN_PURE = frozenset(
    {
        *("asyncio", "concurrent", "ctypes", "logging", "multiprocessing", "os", "pathlib", "psutil", "random"),
        *("secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "subprocess", "tempfile"),
        *("threading", "time", "uuid", "uvloop", "watchfiles", "websockets"),
    }
)
# Pure modules that may name one of these all the same, and why.
MAY_USE = {
    "iii.config_schema": {"pathlib"},  # reads the schema beside a standard worker
    "iii.declarations": {"pathlib"},  # as above
    "iii.nats_options": {"pathlib"},  # names files of certificates
    "iii.engine.config.cautions": {"os", "pathlib"},  # looks at owners and modes
    "iii.engine.config.environment": {"pathlib"},
    "iii.engine.config.interpreter": {"os", "pathlib", "shutil"},  # finds interpreters; gets the environment handed in
    "iii.engine.config.json_schema": {"os", "pathlib"},  # writes the schema for editors
    "iii.engine.config.project": {"os", "pathlib"},  # a project is described by folders, and read from files
    "iii.engine.config.provenance": {"pathlib"},  # as the project, whose files it names
    "iii.engine.config.regular_file": {"os", "pathlib"},  # how the files of a project are opened
    "iii.engine.config.spec": {"pathlib"},
    "iii.engine.config.toml_document": {"pathlib"},
    "iii.engine.supervision.run": {"signal"},  # names of signals
    "iii.engine.supervision.stack_traces": {"pathlib"},  # compares paths, opens none
    "iii.ids": {"os"},  # nothing else is random
    "iii.one_time_keys": {"os", "pathlib"},  # keys are random, and kept as files
}
# `import iii` in a worker must cost a few milliseconds: these do not belong to it.
HEAVY = {
    *("asyncio", "click", "inspect", "jsonschema", "msgspec", "orjson", "psutil", "pydantic", "subprocess"),
    *("watchfiles", "websockets"),
}
# What may not be loaded before the first worker starts: `iii dev` would be later by as much.
LATE = {"asyncio", "click", "jsonschema", "pathspec", "psutil", "watchfiles", "websockets"}


@dataclass(frozen=True)
class Import:
    """One import: from which module and room, of which, and whether it runs when the module is loaded."""

    module: str
    room: str | None
    target: str
    target_room: str | None
    line: int
    at_load: bool


def module_name(path: str) -> str:
    """`iii/engine/__init__.py` -> `iii.engine`."""
    parts = list(PurePosixPath(path).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: str, source: str, modules: frozenset[str]) -> list[Import]:
    """Every import of a file, also those inside functions and under TYPE_CHECKING: coupling is coupling."""
    module = module_name(path)
    package = module if path.endswith("__init__.py") else module.rpartition(".")[0]
    return [
        Import(module, room_of(module), target, room_of(target), node.lineno, at_load)
        for node, at_load in _walk(ast.parse(source), at_load=True)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for target in _targets(node, package, modules)
        if target != module
    ]


def _walk(node: ast.AST, *, at_load: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        type_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        inside = at_load and not deferred and not type_only
        yield child, inside
        yield from _walk(child, at_load=inside)


def _targets(node: ast.Import | ast.ImportFrom, package: str, modules: frozenset[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*parents, base]) if base else ".".join(parents)
    names = [f"{base}.{alias.name}" for alias in node.names]
    return sorted({name if name in modules else base for name in names})


def room_of(module: str) -> str | None:
    """The entry of `ROOMS` that is the longest to fit a module; None for what is not the project's."""
    path = module.replace(".", "/")
    fits = [name for name in ROOMS if name in (path, f"{path}.py") or path.startswith(f"{name.removesuffix('.py')}/")]
    return max(fits, key=len) if fits else None


def _direction(item: Import) -> str | None:
    if item.room is None or item.target_room is None or item.target_room in (item.room, *ROOMS[item.room].may_import):
        return None
    return f"{item.room} must not import {item.target_room} ({item.target})"


def _pure(item: Import) -> str | None:
    top = item.target.partition(".")[0]
    if item.room is None:
        return None
    pure = ROOMS[item.room].pure
    if pure is not EVERY and item.module.rpartition(".")[2] not in pure:
        return None
    forbidden = FORBIDDEN_IN_PURE - MAY_USE.get(item.module, set())
    return f"pure code must not import {top}" if top in forbidden else None


def _light(item: Import) -> str | None:
    top = item.target.partition(".")[0]
    if item.room is None or not ROOMS[item.room].is_light or not item.at_load:
        return None
    return None if top == "iii" or top in sys.stdlib_module_names else f"must load without {top}"


def _standard_worker(item: Import) -> str | None:
    if item.module.partition(".")[0] != "stdlib_workers" or item.target.partition(".")[0] not in PACKAGES:
        return None
    own_package = ".".join(item.module.split(".")[:2])
    packages = (own_package, *SHARED_BY_STANDARD_WORKERS)
    is_public = item.target in ("iii", *map(module_name, PUBLIC_MODULES))
    allowed = is_public or f"{item.target}.".startswith(tuple(f"{name}." for name in packages))
    return None if allowed else f"a standard worker uses only the public `iii` ({item.target})"


def _cycles(graph: Mapping[str, set[str]], of: str) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"cycle of {of}: " + " -> ".join(error.args[1])]
    return []


def _crowded(tree: Mapping[str, str]) -> list[str]:
    counts = Counter(str(PurePosixPath(path).parent) for path in tree if not path.endswith("__init__.py"))
    return [
        f"{folder}: {count} modules, the limit is {MAX_MODULES}"
        for folder, count in sorted(counts.items())
        if count > MAX_MODULES
    ]


def violations(tree: Mapping[str, str]) -> list[str]:
    """Return one line for each broken rule. `tree` maps paths like `iii/errors.py` to their source."""
    modules = frozenset(module_name(path) for path in tree)
    files: dict[str, set[str]] = {}
    folders: dict[str, set[str]] = {}
    found = _crowded(tree)
    for path, source in sorted(tree.items()):
        if (lines := source.count("\n")) > MAX_LINES:
            found.append(f"{path}: {lines} lines, the limit is {MAX_LINES}")
        imports = imports_of(path, source, modules)
        files[module_name(path)] = {item.target for item in imports if item.target in modules}
        for item in imports:
            if item.room and item.target_room and item.room != item.target_room:
                folders.setdefault(item.room, set()).add(item.target_room)
            broken = [rule(item) for rule in (_direction, _pure, _light, _standard_worker)]
            found += [f"{path}:{item.line}: {text}" for text in broken if text]
    return found + _cycles(files, "files") + _cycles(folders, "rooms")


def _name_in(room: str) -> str:
    """A module in a room: `iii/errors.py` -> `iii.errors`, `cli/text` -> `cli.text.example`."""
    return module_name(room) if room.endswith(".py") else f"{room}/example".replace("/", ".")


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_may_import_what_stands_above_it(room: str) -> None:
    path = _name_in(room).replace(".", "/") + ".py"
    forbidden = [other for other in ROOMS if other not in (room, *ROOMS[room].may_import)]
    assert forbidden
    for other in forbidden:
        broken = violations({path: f"import {_name_in(other)}"})
        assert any(f"{room} must not import {other}" in line for line in broken), (room, other)


def _above_base(room: str) -> set[str]:
    """What a room may import, without the files that everything stands on; the standard workers are one room here."""
    return {name for name in ROOMS[room].may_import if name not in (room, *BASE) and room != "stdlib_workers/cron"}


def test_the_policy_has_no_circle_and_names_no_room_that_is_not_there() -> None:
    assert _cycles({room: _above_base(room) for room in ROOMS}, "rooms") == []
    assert {name for room in ROOMS.values() for name in room.may_import} - ROOMS.keys() == set()
    assert [room for room in ROOMS if not (ROOT / room).exists()] == []
    named = {f"{folder}/{name}.py" for folder, room in ROOMS.items() for name in room.pure - EVERY}
    assert [file for file in sorted(named) if not (ROOT / file).exists()] == []
    assert [name for name in MAY_USE if not (ROOT / (name.replace(".", "/") + ".py")).exists()] == []


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("iii/protocol/codec.py", "from iii.engine.routing import router", "iii/protocol must not import iii/engine"),
        (
            "iii/worker/worker.py",
            "from iii.engine.routing.router import Router",
            "iii/worker must not import iii/engine",
        ),
        (
            "iii/engine/routing/router.py",
            "def f():\n    import iii.worker",
            "iii/engine/routing must not import iii/worker",
        ),
        ("iii/engine/routing/router.py", "import asyncio", "pure code must not import asyncio"),
        ("iii/engine/routing/registry.py", "from os import environ", "pure code must not import os"),
        ("iii/engine/routing/new_module.py", "import time", "pure code must not import time"),
        ("iii/engine/supervision/lifecycle.py", "from pathlib import Path", "pure code must not import pathlib"),
        ("iii/engine/config/project.py", "import random", "pure code must not import random"),
        ("iii/worker/functions/schema.py", "import msgspec", "must load without msgspec"),
        ("stdlib_workers/state/__main__.py", "from iii.worker.worker import Worker", "only the public `iii`"),
        ("stdlib_workers/state/store.py", "import stdlib_workers.queue.core", "only the public `iii`"),
        ("stdlib_workers/state/store.py", "from iii.errors import IIIError", "only the public `iii`"),
        ("cli/trigger/run.py", "x = 1\n" * (MAX_LINES + 1), f"the limit is {MAX_LINES}"),
    ],
)
def test_every_rule_can_fail(path: str, source: str, message: str) -> None:
    tree = {"iii/engine/supervision/process.py": "", "iii/engine/routing/router.py": "", "iii/worker/worker.py": ""}
    assert any(message in line for line in violations({**tree, path: source})), violations({**tree, path: source})


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("iii/engine/routing/router.py", "from iii.protocol import messages\nimport heapq"),
        ("iii/engine/config/project.py", "from pathlib import Path\nimport tomllib"),
        ("iii/engine/supervision/process.py", "import asyncio, os\nfrom iii.engine.config.spec import WorkerSpec"),
        ("iii/engine/engine.py", "from iii.engine.supervision import process, supervisor"),
        ("iii/worker/codec/codec.py", "def load():\n    import msgspec"),
        ("stdlib_workers/state/__main__.py", "from iii import register_worker\nfrom . import store"),
        ("stdlib_workers/state/store.py", "from iii.suggestions import nearest_names"),
        ("cli/commands/dev.py", "def run():\n    from iii.engine.engine import run"),
    ],
)
def test_the_intended_direction_passes(path: str, source: str) -> None:
    assert violations({path: source}) == []


def test_a_cycle_between_files_or_rooms_is_found() -> None:
    files = {"iii/worker/a.py": "from iii.worker import b", "iii/worker/b.py": "def f():\n    import iii.worker.a"}
    assert violations(files)[-1].startswith("cycle of files: ")
    rooms = {
        "cli/client/a.py": "import cli.text.b",
        "cli/text/b.py": "",
        "cli/text/c.py": "def f():\n    import cli.client.d",
        "cli/client/d.py": "",
    }
    assert violations(rooms)[-1].startswith("cycle of rooms: ")


def test_a_crowded_folder_is_found() -> None:
    crowded = {f"cli/text/m{number}.py": "" for number in range(MAX_MODULES + 1)}
    assert violations({**crowded, "cli/text/__init__.py": ""}) == ["cli/text: 21 modules, the limit is 20"]


def test_the_project_keeps_every_rule() -> None:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    files = [file for file in files if "templates" not in file.parts]  # of users' projects
    tree = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}
    assert "iii/errors.py" in tree
    assert violations(tree) == []
    assert [path for path in tree if room_of(module_name(path)) is None] == []


def _loaded(statement: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()}


def test_importing_the_sdk_loads_nothing_heavy() -> None:
    loaded = _loaded("import iii, iii.worker.worker")
    assert "iii" in loaded
    assert loaded.isdisjoint(HEAVY), sorted(loaded & HEAVY)


def test_what_runs_before_the_first_worker_loads_nothing_that_can_wait() -> None:
    loaded = _loaded("import iii.engine.start")
    assert "iii" in loaded
    assert loaded.isdisjoint(LATE), sorted(loaded & LATE)
