"""The pages of docs/reference agree with what they describe: keys, commands, limits, variables, files and tests."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from iii.engine.config import listeners
from iii.engine.config.environment import PASSED
from tests.support.live_project import ROOT
from tests.support.standard_project import standard_project

REFERENCE = ROOT / "docs" / "reference"
SOURCES = [path for folder in ("iii", "cli", "stdlib_workers") for path in sorted((ROOT / folder).rglob("*.py"))]
VARIABLE = re.compile(r"III_[A-Z_]*[A-Z]|OTEL_[A-Z_]*[A-Z]")
# What looks like a variable in the source: the completion of click, and a name in the public files.
OTHERS = {"III_COMPLETE", "III_ENGINE_VERSION"}
QUIET = 'import iii\n\niii.register_worker().register_function("quiet::nothing", lambda payload: payload)\n'


def rows_of(page: str) -> list[list[str]]:
    """Return the cells of every row of a page's tables."""
    lines = (REFERENCE / page).read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_the_project_file_and_the_commands_are_what_their_sources_say() -> None:
    command = [sys.executable, "scripts/reference-docs", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_project_file_has_every_key_of_a_listener() -> None:
    text = (REFERENCE / "project-file.md").read_text(encoding="utf-8")
    table = text.partition("## [[engine.listeners]]")[2].partition("\n## ")[0]
    assert tuple(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == listeners._KEYS


def test_every_limit_is_the_constant_that_it_names() -> None:
    rows = [row for row in rows_of("limits.md") if row[-1].startswith("`")]
    assert len(rows) > 30
    for what, limit, _, constant in rows:
        module, _, name = constant.strip("`").rpartition(".")
        assert f"{getattr(importlib.import_module(module), name):g}" == f"{float(limit.split()[0]):g}", what


def test_every_variable_of_the_source_is_explained_and_no_other() -> None:
    text = (REFERENCE / "environment.md").read_text(encoding="utf-8")
    literals = {
        str(node.value)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    }
    read = {name for literal in literals for name in VARIABLE.findall(literal)} - OTHERS
    assert "III_URL" in read
    assert set(VARIABLE.findall(text.replace("`OTEL_*`", ""))) == read
    assert [name for name in PASSED if f"`{name}`" not in text] == []


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What a running project with every standard worker keeps."""
    folder = tmp_path_factory.mktemp("files")
    with standard_project(folder, {"quiet": QUIET}):
        state = folder / "near" / ".iii"
        return {path.relative_to(state).as_posix() for path in state.rglob("*") if not path.is_dir()}


def test_every_file_of_a_running_project_is_explained(kept: set[str]) -> None:
    names = [name for row in rows_of("files.md") for name in re.findall(r"`([^`]+)`", row[0])]
    patterns = [re.compile(re.escape(name).replace("NAME", r"[\w-]+")) for name in names]
    assert "run/engine.json" in kept
    assert {file for file in kept if not any(pattern.fullmatch(file) for pattern in patterns)} == set()
    stores = {file.removesuffix(".db") for file in kept if file.endswith(".db")}
    row = next(row for row in rows_of("files.md") if row[0] == "`NAME.db`")
    assert set(re.findall(r"`(\w+)`", row[1])) == stores


def test_every_test_that_the_guarantees_name_exists() -> None:
    named = [row[-1].strip("`") for row in rows_of("guarantees.md") if row[-1].startswith("`")]
    assert len(named) > 15
    for test in named:
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / Path(path)).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions, test
