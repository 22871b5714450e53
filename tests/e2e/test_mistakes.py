"""The mistakes that people make, each with the sentence that they read and the exit code: files, commands, workers."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from tests.support.dev_project import running_project
from tests.support.live_project import project

TABLE = tomllib.loads(Path(__file__).with_name("mistakes.toml").read_text())
WORKER = "[workers.a]\nrun = 'a.py'\n"
# The script of a worker -> what `iii dev` shows of its start.
WORKERS = {
    "syntax": ("def f(:\n", "x SyntaxError: invalid syntax         syntax.py:1"),
    "module": ("import a_module_nobody_has\n", "x ModuleNotFoundError: No module named 'a_module_nobody_has'"),
    "raises": ("import iii\nworker = iii.register_worker()\n{}['url']\n", "x KeyError: 'url'"),
    "exits": ("import sys\nsys.exit('no database')\n", "x exited with code 1"),
    "killed": ("import os\nos.kill(os.getpid(), 9)\n", "x killed by SIGKILL (out of memory?)"),
    "hangs": ("import time\ntime.sleep(60)\n", "x not ready within 1 s (did the script call register_worker()?)"),
    "circular": ("import circular\ncircular.f()\n", "x AttributeError: partially initialized module 'circular'"),
    "code": ("import iii\nworker = iii.register_worker()\nworker.register_function('', print)\n", "code.py:3"),
}
# Runs `iii WORDS` beside a.py; returns the exit code, and what it wrote to stderr.
Said = Callable[[list[str]], tuple[int, str]]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Return a function that runs a command in a folder, with three programs on the PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("node", "sh", "python3"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    (tmp_path / "a.py").touch()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.chdir(tmp_path)
    for name in ("III_URL", "III_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def run(words: list[str]) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["iii", *words])
        code = main()
        return code, capsys.readouterr().err.strip().removeprefix("error: ").replace(str(tmp_path), "{folder}")

    return run


@pytest.mark.parametrize("row", TABLE["file"], ids=lambda row: row["text"][-40:])
def test_a_mistake_in_the_project_file(tmp_path: Path, said: Said, row: dict[str, Any]) -> None:
    (tmp_path / "iii.toml").write_text(row["text"].replace("WORKER\n", WORKER))
    assert said(["check"]) == (2, row["says"])


@pytest.mark.parametrize("row", TABLE["environment"], ids=lambda row: row["text"])
def test_a_mistake_in_the_environment(tmp_path: Path, said: Said, row: dict[str, Any]) -> None:
    (tmp_path / "iii.toml").write_text(WORKER)
    (tmp_path / ".env").write_text(row["text"])
    assert said(["check"]) == (2, row["says"])


@pytest.mark.parametrize("row", TABLE["command"], ids=lambda row: " ".join(row["words"]))
def test_a_mistake_in_a_command(tmp_path: Path, said: Said, row: dict[str, Any]) -> None:
    (tmp_path / "iii.toml").write_text(WORKER)
    assert said(row["words"]) == (row["code"], row["says"])


@pytest.mark.parametrize("row", TABLE["nowhere"], ids=lambda row: " ".join(row["words"]))
def test_a_command_where_no_project_is(said: Said, row: dict[str, Any]) -> None:
    assert said(row["words"]) == (row["code"], row["says"])


def test_each_mistake_in_a_worker_is_one_block(tmp_path: Path) -> None:
    tables = [f'[workers.{name}]\nrun = "{name}.py"\nready_timeout = "1s"\n' for name in WORKERS]
    (tmp_path / "iii.toml").write_text('[engine]\nlisten = "off"\n' + "".join(tables))
    for name, (script, _) in WORKERS.items():
        (tmp_path / f"{name}.py").write_text(script)
    with running_project(tmp_path) as running:
        running.hear("to try again", count=len(WORKERS))
    for name, (_, sentence) in WORKERS.items():
        blocks = [line for line in running.lines if line.split()[1:3] == [name, "x"]]
        assert len(blocks) == 1, blocks
        assert sentence in blocks[0]


def test_the_table_has_sixty_mistakes() -> None:
    assert sum(map(len, TABLE.values())) + len(WORKERS) >= 60


def test_a_file_of_a_command_that_is_not_there_is_said_before_the_others_start(tmp_path: Path) -> None:
    gone = f"run = '{sys.executable} missing.py'\n"
    toml = f"engine.listen = 'off'\n[workers.gone]\n{gone}{WORKER}"
    with project(tmp_path, toml, {"a": ""}, "dev") as running:
        sentence = f": run: there is no file missing.py in {tmp_path}; make it, or mend its path"
        assert running.lines[0] == f"warning: iii.toml:2: gone{sentence}"
        running.wait("+ a ")
        seen = len(running.lines)
        (tmp_path / "iii.toml").write_text(f"{toml}[workers.late]\n{gone}")
        running.wait(f"iii.toml:6: late{sentence}", after=seen)
        assert running.said("iii.toml:2: gone", after=seen) == []
