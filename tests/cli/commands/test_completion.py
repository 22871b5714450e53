"""What TAB offers: a line's words, against a fake engine; and real shells in a pseudo-terminal, in a real project."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Iii
from tests.support.dev_project import ROOT, Project, running_project
from tests.support.fake_engine import FakeEngine
from tests.support.harness import BOUND

KINDS = {
    "type": "object",
    "properties": {"state": {"enum": ["open", "not done"]}, "soon": {"type": "boolean"}, "id": {"$ref": "#/$defs/Id"}},
    "$defs": {"Id": {"type": "string", "description": "Which one."}},
}


@pytest.fixture
def project(engine: FakeEngine) -> FakeEngine:
    """Return an engine that knows functions, workers, queues and traces."""
    engine.infos["shop::find"] = {"function_id": "shop::find", "description": "Find.\nMore.", "request_schema": KINDS}
    engine.infos["bad\nname"] = {"function_id": "bad\nname"}
    answers: dict[str, Any] = {
        "engine::workers::list": {"workers": [{"name": "shop", "state": "ready"}]},
        "iii::queue::list": {"queues": [{"name": "mails", "ready": 2, "dlq_depth": 1}]},
        "engine::traces::list": {"spans": [{"trace_id": "ab12", "name": "shop::find", "status": "ok"}]},
    }
    engine.functions |= {name: lambda _, answer=answer: answer for name, answer in answers.items()}
    return engine


def offered(iii: Iii, line: str) -> list[str]:
    """Return what bash gets for a line with the cursor at its end."""
    done = iii(_III_COMPLETE="bash_complete", COMP_LINE=line)
    assert (done.stderr, done.returncode) == ("", 0)
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("iii trigger ", ["math::add", "shop::find"]),
        ("iii trigger sh", ["shop::find"]),
        ("iii call 'sh", ["shop::find"]),
        ("iii trigger shop::find ", ["state=", "soon=", "id="]),
        ("iii trigger shop::find state=open s", ["soon="]),
        ("iii trigger shop::find state=", ["state=open", "state=not done"]),
        ("iii trigger shop::find soon=t", ["soon=true"]),
        ("iii trigger shop::lost x", []),
        ("iii trigger --en", ["--enqueue", "--engine"]),
        ("iii trigger --enqueue ", ["mails"]),
        ("iii trigger --timeout-ms ", []),
        ("iii trigger --unknown ", []),
        ("iii functions --worker ", ["shop"]),
        ("iii worker restart ", ["shop"]),
        ("iii worker re", ["restart", "remove"]),
        ("iii logs s", ["shop"]),
        ("iii queue peek ", ["mails"]),
        ("iii trace ", ["ab12"]),
        ("iii replay ab", ["ab12"]),
        ("iii trac", ["trace", "traces"]),
        ("iii nothing zz", []),
    ],
)
def test_names_of_a_running_project_are_offered(project: FakeEngine, iii: Iii, line: str, names: list[str]) -> None:
    assert offered(iii, line) == names


def test_without_an_engine_only_files_are_read(iii: Iii, folder: Path) -> None:
    (folder / "iii.toml").write_text('[workers.math]\nrun = "math.py"\n[workers.state]\n')
    assert offered(iii, "iii trigger ") == []
    assert offered(iii, "iii queue peek ") == []
    assert offered(iii, "iii dev ma") == ["math"]
    assert offered(iii, "iii logs ") == ["math", "state"]
    assert offered(iii, "iii env m") == ["math"]
    assert offered(iii, "iii add st") == ["stream"]
    (folder / "iii.toml").write_text("[broken")
    assert offered(iii, "iii env ") == []


def test_an_engine_that_does_not_answer_is_not_waited_for(folder: Path, iii: Iii) -> None:
    with FakeEngine(folder, is_silent=True):
        assert offered(iii, "iii trigger ") == []


def test_a_time_limit_that_comes_as_the_program_ends_kills_nothing() -> None:
    script = """
        import time
        from cli.commands import completion

        class Slow:
            def __del__(self, sleep=time.sleep):
                sleep(0.4)  # when Python has taken its handlers of signals back

        completion.TIME_LIMIT = 0.2
        completion.limit_time()
        slow = Slow()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_says_how_to_install_it(iii: Iii, shell: str) -> None:
    done = iii("completion", shell)
    assert f"iii completion {shell}" in done.stdout.partition("()")[0]
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)


# Real shells

WORKER = '''\
from iii import register_worker

worker = register_worker()


@worker.function("math::add")
def add(first: float, second: float) -> float:
    """Add two numbers."""
    return first + second
'''
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(iii completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit && compinit -u -D; source <(iii completion zsh)"),
    "fish": (["fish", "--no-config", "-i"], "iii completion fish | source"),
}


CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]|\x07")


class Shell:
    """A shell in a pseudo-terminal of its own; `shown` is all that it has written."""

    def __init__(self, command: list[str], folder: Path, **env: str) -> None:
        self.shown = ""
        pid, self._terminal = pty.fork()
        if pid == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, {**os.environ, **env})
        self._pid = pid

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def expect(self, text: str) -> None:
        """Wait until it has shown `text` since the last time; what moves the cursor or paints does not count."""
        deadline = time.monotonic() + BOUND
        while text not in (shown := CONTROLS.sub("", self.shown)):
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {text!r} in {shown!r}"
            self.shown += os.read(self._terminal, 4096).decode(errors="replace")
        self.shown = shown.partition(text)[2]

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("completing")
    (folder / "iii.toml").write_text('[engine]\nlisten = "off"\n[workers.adder]\nrun = "adder.py"\n')
    (folder / "adder.py").write_text(WORKER)
    with running_project(folder) as running:
        yield running


@contextmanager
def shell_in(folder: Path, name: str, home: Path) -> Iterator[Shell]:
    command, install = SHELLS[name]
    (home / "iii").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cli.main "$@"\n')
    (home / "iii").chmod(0o755)
    env = {"HOME": str(home), "PATH": f"{home}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    shell = Shell(command, folder, **env)
    try:
        shell.type(f"{install}; echo in''stalled\r")
        shell.expect("installed")
        yield shell
    finally:
        shell.close()


@pytest.mark.parametrize("name", SHELLS)
def test_a_call_is_written_with_tabs(running: Project, tmp_path: Path, name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    with shell_in(running.folder, name, tmp_path) as shell:
        for keys, completed in {
            "iii trigger ma\t": "th::add ",
            "fi\t": "rst=",
            "2 sec\t": "ond=",
        }.items():
            shell.type(keys)
            shell.expect(completed)
        shell.type("3\r")
        shell.expect("5")
        shell.type("iii worker restart ad\t")
        shell.expect("der ")
        shell.type("\r")
        shell.expect("adder: ready, generation")


@pytest.mark.parametrize("name", SHELLS)
def test_a_word_that_bash_cuts_at_its_colons_is_completed_whole(running: Project, tmp_path: Path, name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    with shell_in(running.folder, name, tmp_path) as shell:
        shell.type("iii trigger math::a\t")
        shell.expect("dd ")
        shell.type("first=1 second=1\r")
        shell.expect("2")
