"""What surrounds an engine is not as it should be: its folder, its files, its terminal, what it was started by."""

from __future__ import annotations

import os
import pty
import resource
import select
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.command import environment
from tests.support.dev_project import Project
from tests.support.ground import eventually
from tests.support.scene import is_alive

WORKER = """
import os
from iii import register_worker
worker = register_worker()
worker.register_function("a::pid", lambda payload: os.getpid())
"""
# A session, an environment and a parent of its own.
DAEMON = """
import subprocess, sys
code = (
    "import os, time\\nos.setsid()\\nif os.fork(): os._exit(0)\\n"
    "print(os.getpid(), flush=True)\\nos.close(1)\\ntime.sleep(600)"
)
made = subprocess.run([sys.executable, "-c", code], env={}, stdout=subprocess.PIPE, text=True)
worker.register_function("a::daemon", lambda payload: int(made.stdout))
"""
Start = Callable[..., Project]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Write files of a project in `folder` of the test's folder, and run it until it is ready."""
    running: list[Project] = []

    def run(folder: str = "p", toml: str = "[workers.a]\nrun = 'a.py'\n", **files: str) -> Project:
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        if toml:
            (root / "iii.toml").write_text(f"[engine]\nlisten = 'off'\n{toml}")
            (root / "a.py").write_text(files.get("a", WORKER))
        project = Project(root)
        running.append(project)
        project.hear("ready in")
        return project

    yield run
    for project in running:
        project.stop()  # also of one that has ended by itself: its output is read to the end and closed
        assert "Traceback" not in "".join(project.lines)


def ask(project: Project, function_id: str) -> Any:
    """Call a function on a connection of its own; return the result."""
    with closing(project.caller()) as caller:
        return caller.result(function_id)


def iii(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", *words]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=60
    )


def test_an_engine_whose_folder_is_deleted_says_so_and_keeps_others_out(start: Start) -> None:
    project = start(toml="[workers.a]\nrun = 'a.py'\n[workers.state]\n")
    with closing(project.caller()) as caller:
        # In one step: the engine may be making a file there.
        shutil.rmtree((project.folder / ".iii").rename(project.folder.parent / "removed"))
        project.hear(r"\.iii was removed or replaced while the engine runs: nothing more is kept")
        second = iii(project.folder, "dev")
        assert second.returncode == 4
        assert f"iii is already running in {project.folder} (pid " in second.stderr
        # A worker that keeps data is not started on an empty folder; one that does not is.
        assert caller.result("engine::workers::restart", {"name": "a"})
        caller.result("engine::workers::restart", {"name": "state"})
    project.hear(r"state +x .*was removed or replaced")
    assert iii(project.folder, "stop").returncode == 0


def test_a_copy_of_a_running_project_leaves_the_original_alone(start: Start, tmp_path: Path) -> None:
    original = start()
    pid = ask(original, "a::pid")
    ignored = shutil.ignore_patterns("*.sock")
    shutil.copytree(original.folder, tmp_path / "copy", ignore=ignored)
    copy = start("copy", toml="")
    assert ask(copy, "a::pid") != pid
    assert ask(original, "a::pid") == pid


def test_nothing_is_written_behind_a_linked_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "iii.toml").write_text("[workers.a]\nrun = 'a.py'\n")
    (tmp_path / "a.py").write_text(WORKER)
    (tmp_path / ".iii").symlink_to(tmp_path / "elsewhere")
    for words in (("dev",), ("check",)):
        done = iii(tmp_path, *words)
        assert (done.returncode, "is not a directory of yours" in done.stderr) == (2, True)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["lock", "runs", "token", "engine.json", "engine.sock"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_the_run_folder_is_one_sentence_or_replaced(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    (tmp_path / ".iii/run").mkdir(parents=True)
    (tmp_path / "iii.toml").write_text("[engine]\nlisten = 'off'\n[workers.a]\nrun = 'true'\nrestart = 'never'\n")
    make(tmp_path / ".iii/run" / name)
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", "dev"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "ready in" in line:
                process.send_signal(signal.SIGINT)
    assert process.returncode in (0, 2), lines
    if process.returncode:
        (line,) = lines
        assert line.startswith(f"error: {tmp_path}/.iii/run/{name} ")


def test_a_pipe_that_takes_the_place_of_an_env_file_is_named_and_keeps_nobody_waiting(start: Start) -> None:
    project = start()
    before = ask(project, "a::pid")
    os.mkfifo(project.folder / ".env")
    (project.folder / "a.py").write_text(WORKER + "\n# more\n")
    project.hear(r"a x \.env: cannot be read: this is a named pipe, not a file")
    assert ask(project, "a::pid") == before
    (project.folder / ".env").unlink()
    (project.folder / "a.py").write_text(WORKER + "\n# and more\n")
    project.hear(r"a\.py changed: reloaded")
    assert ask(project, "a::pid") != before
    assert project.stop() == 0


def test_a_killed_worker_is_seen_although_the_parent_ignores_the_death_of_children(
    tmp_path: Path, start: Start
) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        project = start()
    finally:
        signal.signal(signal.SIGCHLD, before)
    os.kill(ask(project, "a::pid"), signal.SIGKILL)
    project.hear(r"killed by SIGKILL")
    assert project.stop() == 0


def test_a_terminal_that_stops_background_output_does_not_stop_the_engine(tmp_path: Path) -> None:
    (tmp_path / "iii.toml").write_text("[engine]\nlisten = 'off'\n[workers.a]\nrun = 'a.py'\n")
    (tmp_path / "a.py").write_text(WORKER)
    ours, theirs = pty.openpty()
    mode = termios.tcgetattr(theirs)
    mode[3] |= termios.TOSTOP
    termios.tcsetattr(theirs, termios.TCSANOW, mode)
    code = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, sys.executable, "-m", "cli.main", "dev"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"ready in" not in shown:
        assert select.select([ours], [], [], 30)[0], shown
        shown += os.read(ours, 65536)
    os.write(ours, b"\x03")  # Ctrl-C
    assert process.wait(30) == 0
    os.close(ours)


def test_a_daemon_with_an_environment_of_its_own_ends_with_its_generation(start: Start) -> None:
    project = start(a=WORKER + DAEMON)
    first = ask(project, "a::daemon")
    assert is_alive(first)
    (project.folder / "a.py").write_text(WORKER + DAEMON + "\n# more\n")
    project.hear(r"a\.py changed: reloaded")
    eventually(lambda: not is_alive(first))
    second = ask(project, "a::daemon")
    assert is_alive(second)
    project.stop()
    assert not is_alive(second)


def test_a_daemon_that_may_stay_stays(start: Start) -> None:
    project = start(toml="[workers.a]\nrun = 'a.py'\nkeep_children = true\n", a=WORKER + DAEMON)
    pid = ask(project, "a::daemon")
    kept = psutil.Process(pid)
    try:
        project.stop()
        assert is_alive(pid)
    finally:
        kept.kill()


def test_the_engine_may_open_more_files_than_it_was_given_and_its_workers_may_not(tmp_path: Path, start: Start) -> None:
    _, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        project = start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    eventually(lambda: resource.prlimit(ask(project, "a::pid"), resource.RLIMIT_NOFILE) == (256, hard))
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    assert resource.prlimit(project.facts["pid"], resource.RLIMIT_NOFILE) == (wanted, hard)
