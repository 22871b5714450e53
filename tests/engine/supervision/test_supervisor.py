"""The supervisor against real processes: each test proves what only an operating system can."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from iii.engine.config.spec import WorkerSpec
from iii.engine.supervision.lifecycle import Event
from iii.engine.supervision.reports import AllReady, Exited, Failed, Holding, LeftBehind, LogLine, Notice, ReloadFailed
from iii.engine.supervision.run import Run
from iii.engine.supervision.supervisor import Supervisor
from tests.support.supervising import RUN_ID, SERVE, RecordingHooks, supervise, worker

FORK = "import os, sys, time\n"
# A child in the worker's own group that ignores SIGTERM and says its pid on stderr.
STUBBORN_CHILD = f"""{FORK}import signal
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print('child', os.getpid(), file=sys.stderr, flush=True)
    print('ready', flush=True)
    time.sleep(600)
sys.stdin.read()
"""
# A grandchild in a session of its own, as daemons are.
DAEMON = f"""{FORK}
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print('child', os.getpid(), file=sys.stderr, flush=True)
        print('ready', flush=True)
        time.sleep(600)
    os._exit(0)
sys.stdin.read()
"""

Scenario = Callable[[Supervisor, RecordingHooks], Coroutine[Any, Any, None]]


def run(tmp_path: Path, scenario: Scenario, *workers: WorkerSpec) -> RecordingHooks:
    """Start the workers, play the scenario, stop them; nothing of them may be left afterwards."""

    async def play() -> RecordingHooks:
        supervisor, hooks = supervise(tmp_path, *workers)
        try:
            await asyncio.wait_for(supervisor.start(), 20)
            await scenario(supervisor, hooks)
        finally:
            await asyncio.wait_for(supervisor.shutdown(), 20)
        return hooks

    descriptors = len(os.listdir("/proc/self/fd"))
    hooks = asyncio.run(play())
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not [pid for pid in hooks.pids if psutil.pid_exists(pid)]
    return hooks


async def nothing(_supervisor: Supervisor, _hooks: RecordingHooks) -> None:
    """Start and stop is all."""


def child_of(hooks: RecordingHooks) -> int:
    lines = [report.text for report in hooks.reports if isinstance(report, LogLine)]
    return int(next(line for line in lines if line.startswith("child ")).split()[1])


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_workers_start_after_those_they_name_and_stop_before_them(tmp_path: Path) -> None:
    hooks = run(tmp_path, nothing, worker("b", SERVE, tmp_path, after=("a",)), worker("a", SERVE, tmp_path))
    assert hooks.history.index("promote a#1") < hooks.history.index("opened b#1")
    assert hooks.history.index("closed b#1") < hooks.history.index("retire a#1")


def test_a_reload_promotes_before_it_retires_and_stops_the_old_process(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        supervisor.on_changed("a", ["a.py"])
        await hooks.until("closed a#1")

    history = run(tmp_path, scenario, worker("a", SERVE, tmp_path)).history
    assert history[1:7] == ["opened a#1", "promote a#1", "opened a#2", "promote a#2", "retire a#1", "stop a#1"]
    assert "expect a" not in history[1:7]  # it served all the time


def test_a_reload_lets_running_calls_finish(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        old = Run("a", 0, 1)
        hooks.calls[old] = 1
        supervisor.on_changed("a", ["a.py"])
        await hooks.report(Holding)
        assert "stop a#1" not in hooks.history
        hooks.calls[old] = 0
        supervisor.on_drained(old)
        await hooks.until("closed a#1")

    assert run(tmp_path, scenario, worker("a", SERVE, tmp_path)).reasons["a#1"].words == "exited with code 0"


def test_a_broken_edit_keeps_the_old_generation_and_names_the_line(tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    script.write_text(SERVE)

    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        script.write_text("def broken(:\n    pass\n")
        supervisor.on_changed("a", ["a.py"])
        failed = await hooks.report(ReloadFailed)
        assert (failed.reason.error.file, failed.reason.error.line) == ("a.py", 1)
        assert failed.reason.error.text == "SyntaxError: invalid syntax"
        assert failed.reason.error.source == "def broken(:"
        (row,) = supervisor.rows()
        assert (row["generation"], row["state"], row["last_error"]["line"]) == (1, "ready", 1)
        assert row["last_error"]["source"]
        script.write_text(SERVE)
        supervisor.on_changed("a", ["a.py"])
        await hooks.until("promote a#3")
        (row,) = supervisor.rows()
        assert (row["last_exit"], row["last_error"]) == (None, None)  # it is mended

    hooks = run(tmp_path, scenario, worker_of_file("a", script))
    assert "retire a#2" not in hooks.history


HANDLED = f"""import sys, traceback
try:
    int("x")
except ValueError:
    traceback.print_exc()
{SERVE}"""


def test_a_traceback_does_not_explain_a_signal(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        os.kill(hooks.pids[0], signal.SIGKILL)
        await hooks.until("promote a#2")
        exited = await hooks.report(Exited)
        assert "ValueError: invalid literal for int() with base 10: 'x'" in exited.reason.stderr
        assert exited.reason.error is None
        (row,) = supervisor.rows()
        assert row["last_exit"] == "killed by SIGKILL (out of memory?)"  # nothing has mended it
        assert row["last_error"] is None

    run(tmp_path, scenario, worker("a", HANDLED, tmp_path))


def worker_of_file(name: str, script: Path, **more: Any) -> WorkerSpec:
    """A worker that runs a Python file without the launcher."""
    import sys

    return WorkerSpec(name=name, cwd=script.parent, command=(sys.executable, str(script)), stop_timeout=1.0, **more)


def test_an_exclusive_reload_parks_calls_and_never_overlaps(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        supervisor.on_changed("a", ["a.py"])
        await hooks.until("promote a#2")

    history = run(tmp_path, scenario, worker("a", SERVE, tmp_path, reload="exclusive")).history
    assert history[3:9] == ["expect a", "retire a#1", "stop a#1", "closed a#1", "opened a#2", "promote a#2"]


def test_every_instance_is_reloaded_each_with_its_own_generation(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        rows = await supervisor.command_worker("a", Event.RESTART)
        assert [(row["instance"], row["generation"], row["state"]) for row in rows] == [
            (0, 2, "ready"),
            (1, 2, "ready"),
        ]

    run(tmp_path, scenario, worker("a", SERVE, tmp_path, instances=2))


def test_an_idle_crash_is_the_workers_own_and_it_comes_back(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        hooks.write(Run("a", 0, 1), "crash\n")
        await hooks.until("promote a#2")
        exited = await hooks.report(Exited)
        assert (exited.reason.exit_code, exited.reason.blamed, exited.count, exited.limit) == (3, False, 1, 5)
        assert supervisor.rows()[0]["restarts"] == 1

    history = run(tmp_path, scenario, worker("a", SERVE, tmp_path)).history
    assert history[3:5] == ["expect a", "closed a#1"]  # calls are parked before the running ones are settled


def test_a_kill_during_a_call_is_blamed_on_the_call_and_said_in_words(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        hooks.calls[Run("a", 0, 1)] = 1
        os.kill(hooks.pids[0], signal.SIGKILL)
        await hooks.until("promote a#2")

    reason = run(tmp_path, scenario, worker("a", SERVE, tmp_path)).reasons["a#1"]
    assert (reason.signal, reason.blamed) == (9, True)
    assert reason.words == "killed by SIGKILL (out of memory?)"


def test_a_worker_that_was_never_ready_is_tried_once_and_a_change_tries_again(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        failed = await hooks.report(Failed)
        assert failed.reason.stderr == ("no module named x",)
        assert sum(line.startswith("opened") for line in hooks.history) == 1
        assert hooks.refused["a"]["stderr"] == ["no module named x"]
        supervisor.on_changed("a", ["a.py"])
        await hooks.until("opened a#2")

    run(tmp_path, scenario, worker("a", "import sys; sys.exit('no module named x')", tmp_path))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"command": ("/no/such/program",)}, "cannot start /no/such/program: No such file or directory (ENOENT)"),
        ({"command": ("no-such-program",)}, "cannot start no-such-program: No such file or directory (ENOENT)"),
        ({"script": Path("/no/such.py")}, "cannot start /no/such.py: No such file or directory (ENOENT)"),
        ({"command": ("./plain",)}, "cannot start {cwd}/./plain: Permission denied (EACCES)"),
        (
            {"command": ("./garbage",)},
            "cannot start {cwd}/./garbage, whose interpreter is /no/such/interpreter: No such file or directory",
        ),
    ],
)
def test_what_cannot_be_executed_fails_at_once_by_name(tmp_path: Path, spec: dict[str, Any], words: str) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        assert (await hooks.report(Failed)).reason.words.startswith(words.format(cwd=tmp_path))
        assert "opened a#2" not in hooks.history
        assert (await hooks.report(AllReady)).failed == ("a",)

    (tmp_path / "plain").write_text("echo")
    (tmp_path / "garbage").write_text("#!/no/such/interpreter\n")
    (tmp_path / "garbage").chmod(0o755)
    run(tmp_path, scenario, WorkerSpec(name="a", cwd=tmp_path, **spec))


def test_a_missing_working_directory_is_named(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        assert "gone: No such file" in (await hooks.report(Failed)).reason.words

    run(tmp_path, scenario, WorkerSpec(name="a", cwd=tmp_path / "gone", command=("true",)))


def test_a_worker_that_never_gets_ready_is_terminated_and_told_why(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        exited = await hooks.report(Failed)
        assert exited.reason.words.startswith("not ready within 0.2 s (did the script call register_worker()?)")
        assert exited.reason.signal == signal.SIGTERM

    run(tmp_path, scenario, worker("a", "import time; time.sleep(600)", tmp_path, ready_timeout=0.2))


def test_a_worker_that_ignores_every_request_is_killed_at_its_stop_timeout(tmp_path: Path) -> None:
    code = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVE_ONCE}; time.sleep(600)"
    hooks = run(tmp_path, nothing, worker("a", code, tmp_path, stop_timeout=0.6))
    assert hooks.reasons["a#1"].words == "killed by SIGKILL"


SERVE_ONCE = "print('ready', flush=True)"


def test_a_child_that_ignores_sigterm_does_not_outlive_the_stop(tmp_path: Path) -> None:
    hooks = run(tmp_path, nothing, worker("a", STUBBORN_CHILD, tmp_path))
    assert not is_alive(child_of(hooks))


def test_a_daemon_that_left_the_group_is_found_by_its_marks(tmp_path: Path) -> None:
    hooks = run(tmp_path, nothing, worker("a", DAEMON, tmp_path))
    assert not is_alive(child_of(hooks))


def test_a_daemon_may_stay_if_the_worker_says_so_and_is_listed(tmp_path: Path) -> None:
    hooks = run(tmp_path, nothing, worker("a", DAEMON, tmp_path, keep_children=True))
    child = child_of(hooks)
    try:
        assert is_alive(child)
        assert [report.pids for report in hooks.reports if isinstance(report, LeftBehind)] == [(child,)]
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_that_holds_the_pipes_does_not_delay_the_restart(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        os.kill(hooks.pids[0], signal.SIGKILL)
        await asyncio.wait_for(hooks.until("opened a#2"), 2)

    run(tmp_path, scenario, worker("a", DAEMON, tmp_path))


def test_the_last_lines_and_one_without_newline_are_shown_and_kept(tmp_path: Path) -> None:
    write = "import sys; sys.stderr.write('one\\ntwo'); sys.stderr.flush()"
    code = f"{write}; {SERVE_ONCE}; sys.stdin.readline(); sys.exit('end')"

    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        while (line := await hooks.report(LogLine, count=2)).text != "two":
            pass
        assert line.is_partial
        hooks.write(Run("a", 0, 1), "go\n")
        exited = await hooks.report(Exited)
        assert exited.reason.stderr == ("one", "twoend")

    run(tmp_path, scenario, worker("a", code, tmp_path))


def test_too_much_memory_ends_a_worker_and_names_the_limit(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        exited = await hooks.report(Exited)
        assert "over its limit of 1 MB" in exited.reason.words

    run(tmp_path, scenario, worker("a", SERVE, tmp_path, max_memory=1 << 20))


def test_an_unresponsive_worker_is_replaced_even_when_it_is_frozen(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        os.kill(hooks.pids[0], signal.SIGSTOP)
        os.waitid(os.P_PID, hooks.pids[0], os.WSTOPPED | os.WNOWAIT)
        supervisor.on_unresponsive(Run("a", 0, 1), "no answer for 15 s")
        await hooks.until("promote a#2")

    reason = run(tmp_path, scenario, worker("a", SERVE, tmp_path, stop_timeout=0.3)).reasons["a#1"]
    assert reason.words == "no answer for 15 s, killed by SIGKILL"


def test_the_command_before_each_start_runs_first_and_can_refuse(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        exited = await hooks.report(Failed)
        assert exited.reason.words == "pre: exited with code 4"
        assert exited.reason.stderr == ("not today",)
        assert "opened a#1" not in hooks.history

    run(tmp_path, scenario, worker("a", SERVE, tmp_path, pre=("sh", "-c", "echo not today; exit 4")))


def test_a_changed_project_touches_only_what_changed(tmp_path: Path) -> None:
    a, b, c = (worker(name, SERVE, tmp_path) for name in "abc")

    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        changed = worker("b", SERVE + "\n", tmp_path, line=9)
        project = supervise(tmp_path, worker("a", SERVE, tmp_path, line=3), changed, worker("d", SERVE, tmp_path))[
            0
        ]._project
        supervisor.apply(project)
        await hooks.until("closed c#1")
        await hooks.until("promote d#1")
        await hooks.until("closed b#1")
        assert [(row["name"], row["generation"]) for row in supervisor.rows()] == [("a", 1), ("b", 2), ("d", 1)]

    run(tmp_path, scenario, a, b, c)


def test_kill_ends_a_shutdown_that_would_wait(tmp_path: Path) -> None:
    code = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVE_ONCE}; time.sleep(600)"

    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        shutdown = asyncio.create_task(supervisor.shutdown())
        await hooks.until("stop a#1")
        supervisor.kill()
        await asyncio.wait_for(shutdown, 10)

    run(tmp_path, scenario, worker("a", code, tmp_path, stop_timeout=60.0))


def test_a_start_that_rewrites_its_own_file_is_paused(tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    script.write_text(SERVE)

    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        for generation in range(2, 8):
            script.touch()
            supervisor.on_changed("a", ["a.py"])
            os.utime(script)  # while the new generation starts
            supervisor.on_changed("a", ["a.py"])
            if any(isinstance(report, Notice) for report in hooks.reports):
                break
            await hooks.until(f"promote a#{generation}")
        notice = await hooks.report(Notice)
        assert notice.text == "reload paused: its start changes a.py, which it is watched for"

    run(tmp_path, scenario, worker_of_file("a", script))


def test_the_run_id_marks_every_process(tmp_path: Path) -> None:
    async def scenario(supervisor: Supervisor, hooks: RecordingHooks) -> None:
        assert psutil.Process(hooks.pids[0]).environ()["III_RUN_ID"] == RUN_ID

    run(tmp_path, scenario, worker("a", SERVE, tmp_path))
