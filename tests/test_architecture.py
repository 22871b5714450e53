"""The cut of docs/architecture.md, held by the syntax trees of the source: imports run one way.

`RULES` is the whole policy. `violations` takes paths and sources, so the small fake trees below show that
every rule can fail; the last tests apply it to the project itself.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("iii", "cli", "stdlib_workers")
MAX_LINES = 400


@dataclass(frozen=True)
class Layer:
    """Modules (dotted prefixes) of one layer, and the layers they may import beside their own.

    `siblings`: modules of the layer do not import each other. `pure`: nothing that waits, reads a clock or
    touches the system. `light`: imports at module level come from the standard library or the project.
    """

    modules: tuple[str, ...]
    may_import: tuple[str, ...] = ()
    siblings: bool = False
    pure: bool = False
    light: bool = False


# The longest prefix that fits places a module. A file of iii/engine that is not named here is one of the
# decisions if its docstring says "Pure", and is held to it; otherwise it is an I/O sibling.
RULES: dict[str, Layer] = {
    "errors": Layer(("iii.errors", "iii.ids", "iii.version"), pure=True, light=True),
    "protocol": Layer(("iii.protocol",), ("errors",), pure=True),
    "decisions": Layer(
        (
            "iii.engine.registry",
            "iii.engine.router",
            "iii.engine.lifecycle",
            "iii.engine.restart",
            "iii.engine.spec",
            "iii.engine.events",
        ),
        ("errors", "protocol"),
        pure=True,
    ),
    "configuration": Layer(
        (
            "iii.engine.config",
            "iii.engine.document",
            "iii.engine.environment",
            "iii.engine.keys",
            "iii.engine.listeners",
            "iii.engine.positions",
            "iii.engine.program",
        ),
        ("errors", "decisions"),
        pure=True,
    ),
    "sdk": Layer(("iii", "iii.worker"), ("errors", "protocol"), light=True),
    "sdk-testing": Layer(("iii.testing", "iii.pytest_plugin"), ("errors", "protocol", "sdk", "decisions", "siblings")),
    "system": Layer(
        ("iii.engine.heap", "iii.engine.poller", "iii.engine.procfs", "iii.engine.roots"),
        ("errors", "decisions", "configuration"),
    ),
    "siblings": Layer(("iii.engine",), ("errors", "protocol", "decisions", "configuration", "system"), siblings=True),
    "supervisor": Layer(
        (
            "iii.engine.supervisor",
            "iii.engine.seat",
            "iii.engine.generation",
            "iii.engine.hooks",
            "iii.engine.row",
            "iii.engine.gate",
            "iii.engine.census",
            "iii.engine.sweep",
            "iii.engine.vitals",
        ),
        ("errors", "protocol", "decisions", "configuration", "system", "siblings"),
    ),
    "engine": Layer(
        (
            "iii.engine.address",
            "iii.engine.claim",
            "iii.engine.display",
            "iii.engine.doorway",
            "iii.engine.engine",
            "iii.engine.exchange",
            "iii.engine.feed",
            "iii.engine.channel_link",
            "iii.engine.channel_socket",
            "iii.engine.checkpoint",
            "iii.engine.http_check",
            "iii.engine.inquiry",
            "iii.engine.terms",
            "iii.engine.link",
            "iii.engine.gateway",
            "iii.engine.headstart",
            "iii.engine.heartbeat",
            "iii.engine.rundir",
            "iii.engine.start",
            "iii.engine.switchboard",
        ),
        ("errors", "protocol", "decisions", "configuration", "system", "siblings", "supervisor"),
    ),
    "cli": Layer(
        ("cli",), ("errors", "protocol", "decisions", "configuration", "siblings", "engine", "standard workers")
    ),
    "standard workers": Layer(("stdlib_workers",)),  # `iii` itself and their own package, see _standard_worker
}

# What several standard workers are built on; these packages are no workers.
SHARED_BY_STANDARD_WORKERS = tuple(f"stdlib_workers.{name}" for name in ("egress", "storage", "events", "values"))

# What makes a decision depend on anything but its arguments.
FORBIDDEN_IN_PURE = frozenset(
    {
        "asyncio",
        "concurrent",
        "ctypes",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "psutil",
        "random",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "uuid",
        "uvloop",
        "watchfiles",
        "websockets",
    }
)
# Pure modules that may name one of these all the same, and why.
MAY_USE = {
    "iii.engine.config": {"pathlib"},  # a project is described by folders, and read from files
    "iii.engine.config_schema": {"pathlib"},
    "iii.engine.document": {"pathlib"},
    "iii.engine.environment": {"pathlib"},
    "iii.engine.program": {"os", "pathlib", "shutil"},  # finds interpreters; gets the environment handed in
    "iii.engine.run": {"signal"},  # names of signals
    "iii.engine.spec": {"pathlib"},
    "iii.ids": {"os"},  # nothing else is random
    "iii.engine.traceback_lines": {"pathlib"},  # compares paths, opens none
}
# `import iii` in a worker must cost a few milliseconds: these do not belong to it.
HEAVY = {
    "asyncio",
    "click",
    "inspect",
    "jsonschema",
    "msgspec",
    "orjson",
    "psutil",
    "pydantic",
    "subprocess",
    "watchfiles",
    "websockets",
}


@dataclass(frozen=True)
class Import:
    """One import: from which module and layer, of which, and whether it runs when the module is loaded."""

    module: str
    layer: str | None
    target: str
    target_layer: str | None
    line: int
    at_load: bool


def module_name(path: str) -> str:
    """`iii/engine/__init__.py` -> `iii.engine`."""
    parts = list(PurePosixPath(path).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: str, source: str, layers: Mapping[str, str | None]) -> list[Import]:
    """Every import of a file, also those inside functions and under TYPE_CHECKING: coupling is coupling."""
    module = module_name(path)
    package = module if path.endswith("__init__.py") else module.rpartition(".")[0]
    return [
        Import(module, layers[module], target, layers.get(target, placed(target)), node.lineno, at_load)
        for node, at_load in _walk(ast.parse(source), at_load=True)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for target in _targets(node, package, frozenset(layers))
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


def placed(module: str) -> str | None:
    """The layer whose prefix is the longest that fits."""
    fits = [
        (len(prefix), name)
        for name, layer in RULES.items()
        for prefix in layer.modules
        if module == prefix or module.startswith((f"{prefix}.", f"{prefix}_"))
    ]
    return max(fits)[1] if fits else None


def layer_of(path: str, source: str) -> str | None:
    """Where the rules place a file; an engine file that they do not name speaks for itself."""
    layer = placed(module_name(path))
    says_pure = re.search(r"\bPure\b", ast.get_docstring(ast.parse(source)) or "")
    return "decisions" if layer == "siblings" and says_pure else layer


def _direction(item: Import) -> str | None:
    if item.layer is None or item.target_layer is None or item.layer == "standard workers":
        return None
    rules = RULES[item.layer]
    if item.layer != item.target_layer and item.target_layer not in rules.may_import:
        return f"{item.layer} must not import {item.target_layer} ({item.target})"
    if item.layer == item.target_layer and rules.siblings and item.target not in rules.modules:
        return f"{item.layer} must not import each other ({item.target})"
    return None


def _pure(item: Import) -> str | None:
    top = item.target.partition(".")[0]
    if item.layer is None or not RULES[item.layer].pure:
        return None
    forbidden = FORBIDDEN_IN_PURE - MAY_USE.get(item.module, set())
    return f"pure code must not import {top}" if top in forbidden else None


def _light(item: Import) -> str | None:
    top = item.target.partition(".")[0]
    if item.layer is None or not RULES[item.layer].light or not item.at_load:
        return None
    return None if top == "iii" or top in sys.stdlib_module_names else f"must load without {top}"


def _standard_worker(item: Import) -> str | None:
    if item.layer != "standard workers" or item.target.partition(".")[0] not in PACKAGES:
        return None
    own_package = ".".join(item.module.split(".")[:2])
    packages = (own_package, *SHARED_BY_STANDARD_WORKERS)
    allowed = item.target == "iii" or f"{item.target}.".startswith(tuple(f"{name}." for name in packages))
    return None if allowed else f"a standard worker uses only the public `iii` ({item.target})"


def _cycle(graph: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return ["import cycle: " + " -> ".join(error.args[1])]
    return []


def violations(tree: Mapping[str, str]) -> list[str]:
    """Return one line for each broken rule. `tree` maps paths like `iii/errors.py` to their source."""
    layers = {module_name(path): layer_of(path, source) for path, source in tree.items()}
    graph: dict[str, set[str]] = {}
    found: list[str] = []
    for path, source in sorted(tree.items()):
        if (lines := source.count("\n")) > MAX_LINES:
            found.append(f"{path}: {lines} lines, the limit is {MAX_LINES}")
        imports = imports_of(path, source, layers)
        graph[module_name(path)] = {item.target for item in imports if item.target in layers}
        for item in imports:
            broken = [rule(item) for rule in (_direction, _pure, _light, _standard_worker)]
            found += [f"{path}:{item.line}: {text}" for text in broken if text]
    return found + _cycle(graph)


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("iii/errors.py", "import iii.protocol.lines", "errors must not import protocol"),
        ("iii/protocol/codec.py", "from iii.engine import router", "protocol must not import decisions"),
        ("iii/worker/worker.py", "from iii.engine.router import Router", "sdk must not import decisions"),
        ("iii/engine/router.py", "def f():\n    import iii.worker", "decisions must not import sdk"),
        ("iii/engine/connection.py", "from . import process", "siblings must not import each other"),
        (
            "iii/engine/process.py",
            "from iii.engine.supervisor import x",
            "siblings must not import supervisor",
        ),
        ("iii/engine/supervisor.py", "import iii.engine.engine", "supervisor must not import engine"),
        ("iii/engine/engine.py", "import cli.main", "engine must not import cli"),
        ("cli/main.py", "from iii import register_worker", "cli must not import sdk"),
        ("iii/engine/router.py", "import asyncio", "pure code must not import asyncio"),
        ("iii/engine/registry.py", "from os import environ", "pure code must not import os"),
        ("iii/engine/router_calls.py", "import time", "pure code must not import time"),
        ("iii/engine/lifecycle.py", "from pathlib import Path", "pure code must not import pathlib"),
        ("iii/engine/order.py", '"""Order. Pure."""\nimport random', "pure code must not import random"),
        ("iii/worker/schema.py", "import msgspec", "must load without msgspec"),
        ("stdlib_workers/state/__main__.py", "from iii.worker.worker import Worker", "only the public `iii`"),
        ("stdlib_workers/state/store.py", "import stdlib_workers.queue.core", "only the public `iii`"),
        ("cli/trigger.py", "x = 1\n" * (MAX_LINES + 1), "the limit is 400"),
    ],
)
def test_every_rule_can_fail(path: str, source: str, message: str) -> None:
    tree = {path: source, "iii/engine/process.py": "", "iii/engine/router.py": "", "iii/worker/worker.py": ""}
    assert any(message in line for line in violations({**tree, path: source})), violations(tree)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("iii/engine/router.py", "from iii.protocol import messages\nimport heapq"),
        ("iii/engine/config.py", "from pathlib import Path\nimport tomllib"),
        ("iii/engine/process.py", "import asyncio, os\nfrom iii.engine.spec import WorkerSpec"),
        ("iii/engine/engine.py", "from iii.engine import process, supervisor, router"),
        ("iii/worker/json_codec.py", "def load():\n    import msgspec"),
        ("stdlib_workers/state/__main__.py", "from iii import register_worker\nfrom . import store"),
        ("cli/dev.py", "def run():\n    from iii.engine.engine import run"),
    ],
)
def test_the_intended_direction_passes(path: str, source: str) -> None:
    assert violations({path: source}) == []


def test_a_cycle_between_files_of_one_layer_is_found() -> None:
    tree = {
        "iii/worker/a.py": "from iii.worker import b",
        "iii/worker/b.py": "def f():\n    import iii.worker.a",
    }
    assert violations(tree)[-1].startswith("import cycle: ")


def test_the_project_keeps_every_rule() -> None:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    tree = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}
    assert "iii/errors.py" in tree
    assert violations(tree) == []


def test_importing_the_sdk_loads_nothing_heavy() -> None:
    code = "import sys; before = set(sys.modules); import iii, iii.worker; print(*set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert "iii" in loaded
    assert loaded.isdisjoint(HEAVY), sorted(loaded & HEAVY)
