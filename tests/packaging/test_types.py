"""What type checkers say of users' code with the installed package: a new project, and the blocks of the docs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOUND = 240
PAGES = ("README.md", *sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md")))
# What a page's blocks may use without saying where it comes from; tests/testing/test_documents.py provides it as well.
GIVEN = """\
from collections.abc import Callable
from typing import cast

from iii import Worker
from iii.testing import Engine

iii = cast(Engine, None)
worker = cast(Worker, None)


def wait_until(condition: Callable[[], object]) -> None: ...


"""

pytestmark = pytest.mark.timeout(BOUND)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment that has the wheel; types need none of its dependencies."""
    folder = tmp_path_factory.mktemp("typed")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, ROOT], check=True)
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    interpreter = folder / "env" / "bin" / "python"
    wheel = next(folder.glob("*.whl"))
    subprocess.run([*pip, "--python", interpreter, "install", "--no-deps", wheel], check=True)
    subprocess.run([*pip, "--python", interpreter, "install", "pytest"], check=True)
    return interpreter


def checked(tool: str, python: Path, folder: Path) -> tuple[int, str]:
    """Run mypy or pyright over a folder, with what is installed beside an interpreter."""
    arguments = {
        "mypy": ["--strict", "--python-executable", str(python), "--no-incremental", "."],
        "pyright": ["--pythonpath", str(python), "."],
    }[tool]
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MYPY"))}
    command = [sys.executable, "-m", tool, *arguments]
    done = subprocess.run(command, cwd=folder, env=plain, capture_output=True, text=True, timeout=BOUND, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("tool", ["mypy", "pyright"])
@pytest.mark.parametrize("template", ["minimal", "http", "queue", "agent"])
def test_a_new_project_is_clean(tool: str, template: str, python: Path, tmp_path: Path) -> None:
    iii = python.with_name("iii")
    command = [sys.executable, "-m", "iii_engine", "init", "new", "--template", template]
    assert iii.exists()
    subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    assert sorted((tmp_path / "new").rglob("*.py"))
    code, output = checked(tool, python, tmp_path / "new")
    assert code == 0, output


@pytest.mark.parametrize("tool", ["mypy", "pyright"])
@pytest.mark.parametrize("example", ["shortener", "orders", "agent"])
def test_an_example_on_handlers_is_clean(tool: str, example: str, python: Path, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("node_modules", ".iii", "__pycache__")
    shutil.copytree(ROOT / "examples" / example, tmp_path / example, ignore=ignored)
    code, output = checked(tool, python, tmp_path / example)
    assert code == 0, output


# What `iii types` writes for the page that speaks of it, as far as the page uses it.
STUBS = """\
class _Shop:
    def order(self, *, customer: str, order: dict[str, str]) -> dict[str, float]: ...

class _AsyncShop:
    async def order(self, *, customer: str, order: dict[str, str]) -> dict[str, float]: ...

class Functions:
    shop: _Shop
    def __init__(self, worker: object) -> None: ...

class AsyncFunctions:
    shop: _AsyncShop
    def __init__(self, worker: object) -> None: ...
"""


def _pages(folder: Path) -> Iterator[Path]:
    """Write the Python blocks of each page as one module, at the lines where they stand in the page."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        blocks = [block[1] for block in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
        if blocks:
            path = folder / (re.sub(r"\W", "_", page.removesuffix(".md")) + ".py")
            path.write_text(GIVEN + "\n\n".join(blocks), encoding="utf-8")
            yield path


@pytest.mark.parametrize("tool", ["mypy", "pyright"])
def test_the_blocks_of_the_docs_are_clean(tool: str, python: Path, tmp_path: Path) -> None:
    (tmp_path / "iii_functions.pyi").write_text(STUBS)
    assert len(list(_pages(tmp_path))) > 10
    code, output = checked(tool, python, tmp_path)
    assert code == 0, output


WRONG = {
    'worker.register_trigger({"typ": "http", "function_id": "a::b", "config": {}})': "typ",
    "from iii import Nothing": "Nothing",
    'worker.register_function("a::b")': "handler|register_function",
    'worker.trigger({"function_id": "a::b", "timeout": 5})': "trigger",
    'worker.function("a::b", request_fromat={})': "request_fromat",
}


@pytest.mark.parametrize("tool", ["mypy", "pyright"])
@pytest.mark.parametrize("line", WRONG)
def test_a_mistake_is_found(tool: str, line: str, python: Path, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(f"from iii import register_worker\n\nworker = register_worker()\n{line}\n")
    code, output = checked(tool, python, tmp_path)
    assert code == 1, output
    assert "worker.py:4" in output
    assert re.search(WRONG[line], output)
