"""`iii init`: each template is made, runs under `iii dev`, answers its first call, and passes its own tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.project.init import TEMPLATES, files_of
from tests.support import official
from tests.support.command import Iii
from tests.support.dev_project import ROOT, Project, free_port, running_project


def passes(command: list[str], folder: Path) -> str:
    """Run a program in a project, and return what it has written."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("III_")}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**env, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def result(running: Project, function_id: str, data: Any) -> Any:
    caller = running.caller()
    try:
        return caller.result(function_id, data)
    finally:
        caller.close()


def greets(running: Project) -> None:
    assert result(running, "hello::greet", {"name": "Ada"}) == {"message": "Hello, Ada."}


def serves(running: Project) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{running.ports['http']}/hello/Ada") as answer:
        assert json.load(answer) == {"message": "Hello, Ada!"}


def sends(running: Project) -> None:
    assert result(running, "mail::welcome", {"to": "ada@example.org"})["receipt"]
    running.hear("sending to ada@example.org: Welcome!")


def streams(running: Project) -> None:
    command = [sys.executable, "-m", "cli.main", "trigger", "agent::answer", "question=How is the weather in Ulm?"]
    assert passes(command, running.folder).split() == ['"It"', '"is"', '"sunny"', '"in"', '"Ulm."']
    with urllib.request.urlopen(f"http://127.0.0.1:{running.ports['http']}/answer?question=Hello") as events:
        assert events.readline() == b"data: Ask\n"


CALLS: dict[str, Callable[[Project], None]] = {"minimal": greets, "http": serves, "queue": sends, "agent": streams}


@pytest.mark.parametrize("template", CALLS)
def test_a_new_project_runs_answers_and_passes_its_tests(iii: Iii, folder: Path, template: str) -> None:
    done = iii("init", "hello", "--template", template)
    assert (done.stderr, done.returncode) == ("", 0)
    place = folder / "hello"
    assert " passed" in passes([sys.executable, "-m", "pytest", "-p", "no:cacheprovider"], place)
    toml = place / "iii.toml"
    port = free_port()
    toml.write_text('[engine]\nlisten = "off"\n' + toml.read_text())
    if template in ("http", "agent"):
        toml.write_text(f"{toml.read_text()}config = {{ port = {port} }}\n")
    with running_project(place) as running:
        running.ports["http"] = port
        CALLS[template](running)


@pytest.mark.skipif(not official.HAS_NODE, reason="node is not installed")
@pytest.mark.timeout(180)
def test_a_new_typescript_project_runs_answers_and_passes_its_tests(iii: Iii, folder: Path) -> None:
    assert iii("init", "hello", "--template", "typescript").returncode == 0
    place = folder / "hello"
    packages = json.loads((place / "package.json").read_text())
    shutil.copytree(official.typescript_with(packages), place / "node_modules", symlinks=True)
    passes(["npm", "test"], place)
    (place / "iii.toml").write_text('[engine]\nlisten = "127.0.0.1:0"\n' + (place / "iii.toml").read_text())
    with running_project(place, 60) as running:
        greets(running)


def test_every_template_is_listed(iii: Iii) -> None:
    assert [line.split()[0] for line in iii("init", "--list").stdout.splitlines()] == list(TEMPLATES)
    listed = json.loads(iii("init", "--list", "--json").stdout)["templates"]
    assert [row["name"] for row in listed] == list(TEMPLATES)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_project_says_what_was_made_and_what_comes_next(iii: Iii, folder: Path, template: str) -> None:
    done = iii("init", "My Shop", "--template", template)
    created, *_ = done.stdout.splitlines()
    files = created.removeprefix("  created ").split(", ")
    assert files == list(files_of(template, "x"))
    assert {"iii.toml", ".gitignore", "AGENTS.md"} < set(files)
    assert TEMPLATES[template].first_call in done.stdout
    place = folder / "My Shop"
    texts = {file: (place / file).read_text() for file in files}
    assert not [file for file, text in texts.items() if "PROJECT" in text or "FIRST_CALL" in text]
    assert "my-shop" in texts["AGENTS.md"]
    assert len(texts["AGENTS.md"].splitlines()) < 60
    if template != "typescript":  # whose program comes with `npm install`
        assert iii("check", "-f", "My Shop").stdout.startswith("iii.toml is valid: ")


def test_a_fresh_clone_has_the_schema_that_the_project_file_names(iii: Iii, folder: Path) -> None:
    iii("init", "hello")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], cwd=folder / "hello", check=True)
    subprocess.run([*git, "clone", "-q", "hello", "clone"], cwd=folder, check=True)
    named = (folder / "clone" / "iii.toml").read_text().splitlines()[0].removeprefix("#:schema ")
    assert json.loads((folder / "clone" / named).read_text())["title"] == "iii.toml"
    iii("check", "-f", "clone")
    status = subprocess.run([*git, "status", "--porcelain"], cwd=folder / "clone", capture_output=True, check=True)
    assert status.stdout == b""


def test_files_that_are_there_are_kept_and_ignored_names_are_added(iii: Iii, folder: Path) -> None:
    (folder / ".gitignore").write_text("mine\n.venv/")
    (folder / "pyproject.toml").write_text("# mine\n")
    done = json.loads(iii("init", "--json").stdout)
    assert done["kept"] == ["pyproject.toml"]
    assert done["changed"] == [".gitignore"]
    assert (folder / ".gitignore").read_text() == "mine\n.venv/\n__pycache__/\n.pytest_cache/\n.env.local\n"
    assert (folder / "pyproject.toml").read_text() == "# mine\n"


def test_a_project_is_not_made_over_another(iii: Iii, folder: Path) -> None:
    iii("init")
    (folder / "iii.toml").unlink()
    (folder / "workers" / "hello.py").write_text("mine\n")
    done = iii("init")
    assert (done.returncode, "hello.py exists already" in done.stderr) == (2, True)
    assert (folder / "workers" / "hello.py").read_text() == "mine\n"
    assert not (folder / "iii.toml").exists()


def test_a_configuration_for_the_debugger_comes_with_a_new_project_or_into_one(tmp_path: Path, iii: Iii) -> None:
    assert iii("init", "new", "--vscode").returncode == 0
    file = tmp_path / "new/.vscode/launch.json"
    text = file.read_text()
    assert '"port": 5678' in text
    file.unlink()
    for what in ("created", "kept"):
        done = iii("init", "new", "--vscode")
        assert done.stdout.splitlines()[0] == f"  {what} .vscode/launch.json"
        assert file.read_text() == text
