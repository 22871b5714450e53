"""The files of a worker are what its imports have looked at: each kind of them mends or reloads it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.dev_project import Project, running_project
from tests.support.ground import eventually

HEAD = """
import sys
sys.path[:0] = ["linked", "../outside"]
from iii import register_worker
worker = register_worker()
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A worker that answers with what it imports, which is nothing at first; called on a connection of its own."""
    root = tmp_path / "p"
    root.mkdir()
    (tmp_path / "outside").mkdir()
    for name in ("v1", "v2"):
        (root / name).mkdir()
        (root / name / "version.py").write_text(f"V = {name!r}\n")
    (root / "linked").symlink_to("v1")
    (root / "iii.toml").write_text("[engine]\nlisten = 'off'\n[workers.a]\nrun = 'a.py'\n")
    save(root, "None")
    with running_project(root) as running:
        yield running
        assert "Traceback" not in "".join(line for line in running.lines if " a " not in line)


def save(root: Path, answer: str, imports: str = "") -> None:
    text = f"{HEAD}{imports}\nworker.register_function('a::v', lambda payload: {answer})\n"
    (root / "new").write_text(text)
    (root / "new").replace(root / "a.py")


def await_answer(project: Project, wanted: Any) -> None:
    with closing(project.caller()) as caller:
        eventually(lambda: caller.result("a::v") == wanted)


@pytest.mark.parametrize("path", ["fresh.py", "fresh/__init__.py", "../outside/fresh.py"])
def test_a_module_that_is_made_later_mends_the_worker(project: Project, path: str) -> None:
    save(project.folder, "fresh.V", "import fresh")
    project.hear("No module named 'fresh'")
    (project.folder / path).parent.mkdir(exist_ok=True)
    (project.folder / path).write_text("V = 7\n")
    await_answer(project, 7)


def test_a_module_of_a_folder_that_is_made_later_mends_the_worker(project: Project) -> None:
    save(project.folder, "deep.V", "from fresh.below import deep")
    project.hear("No module named 'fresh'")
    (project.folder / "fresh/below").mkdir(parents=True)
    (project.folder / "fresh/below/deep.py").write_text("V = 8\n")
    await_answer(project, 8)


def test_a_module_that_broke_the_start_mends_it(project: Project) -> None:
    (project.folder / "helper.py").write_text("V = (\n")
    save(project.folder, "helper.V", "import helper")
    project.hear("SyntaxError")
    (project.folder / "helper.py").write_text("V = 9\n")
    await_answer(project, 9)


def test_a_link_on_the_way_and_a_module_outside_of_the_project_reload_the_worker(project: Project) -> None:
    outside = project.folder / "../outside/other.py"
    outside.write_text("V = 1\n")
    save(project.folder, "[version.V, other.V]", "import version, other")
    await_answer(project, ["v1", 1])
    (project.folder / "next").symlink_to("v2")
    os.replace(project.folder / "next", project.folder / "linked")
    await_answer(project, ["v2", 1])
    outside.write_text("V = 2\n")
    await_answer(project, ["v2", 2])


def test_what_would_be_found_first_is_found_when_it_is_made(project: Project) -> None:
    (project.folder / "../outside/both.py").write_text("V = 'outside'\n")
    save(project.folder, "both.V", "import both")
    await_answer(project, "outside")
    (project.folder / "v1/both.py").write_text("V = 'linked'\n")
    await_answer(project, "linked")


def test_a_start_that_changes_what_it_has_loaded_serves_in_the_end_with_a_word(project: Project) -> None:
    (project.folder / "stamp.py").write_text("V = 0\n")
    save(project.folder, "stamp.V > 0", "import stamp\nopen('stamp.py', 'w').write(f'V = {stamp.V + 1}\\n')")
    project.hear(r"its start changes stamp\.py after having loaded it: it serves what it has loaded")
    await_answer(project, True)
