"""R01 to R13, R15, R16: code that changes while it serves. R14 is in test_faults_reload_groups.py."""

from __future__ import annotations

import errno
import itertools
import subprocess
import threading
import time
from concurrent.futures import Future

import pytest

from tests.support.caller import Outcome
from tests.support.failpoint import PATH, Failpoint
from tests.support.ground import Ground, eventually
from tests.support.scene import HEAD, Scene

ANSWER = "on('a::answer')(lambda _: {version})\n"
HOLD = """
@on("a::hold")
def hold(payload):
    say("holding")
    while not os.path.exists("go"):
        time.sleep(0.01)
    return {version}
on("a::answer")(lambda _: {version})
"""


class Load:
    """Calls at a steady rate while a test does something else."""

    def __init__(self, scene: Scene, function_id: str, pause: float = 0.004) -> None:
        self.calls: list[Future[Outcome]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(scene, function_id, pause), daemon=True)
        self._thread.start()

    def _run(self, scene: Scene, function_id: str, pause: float) -> None:
        while not self._is_over.wait(pause):
            self.calls.append(scene.caller.begin(function_id))

    def end(self) -> list[Outcome]:
        self._is_over.set()
        self._thread.join()
        return [call.result(30) for call in self.calls]


def save(scene: Scene, version: object, body: str = ANSWER) -> int:
    """Save worker a; return how many events there were before."""
    seen = len(scene.events)
    scene.script("a", body.format(version=version))
    return seen


def test_r01_no_call_fails_during_a_reload_and_none_is_answered_by_old_code_after_it(scene: Scene) -> None:
    scene.play({"a": ANSWER.format(version=0)})
    load = Load(scene, "a::answer", 0.002)
    for version in range(1, 6):
        scene.wait("Reloaded", "a", after=save(scene, version))
        assert scene.ask("a::answer").value == version
    versions = [outcome.value for outcome in load.end()]
    assert versions == sorted(versions)
    assert set(versions) == set(range(6))


@pytest.mark.parametrize(
    ("broken", "text", "line"),
    [
        ("def broken(:\n", "SyntaxError", 1),
        ("\nimport a_module_that_nobody_has\n", "ModuleNotFoundError", 2),
        ("sys.exit(1)\n", "", 0),
    ],
)
def test_r02_broken_code_is_shown_with_its_line_and_the_old_code_serves(
    scene: Scene, broken: str, text: str, line: int
) -> None:
    scene.play({"a": ANSWER.format(version=1)})
    load = Load(scene, "a::answer")
    reason = scene.wait("ReloadFailed", "a", after=save(scene, 0, broken))["reason"]
    if text:
        assert reason["error"]["text"].startswith(text)
        assert (reason["error"]["file"], reason["error"]["line"]) == ("workers/a.py", HEAD.count("\n") + line)
    assert scene.ask("a::answer").value == 1
    assert len(scene.seen("ReloadFailed", "a")) == 1
    scene.wait("Reloaded", "a", after=save(scene, 2))
    assert scene.ask("a::answer").value == 2
    assert {outcome.value for outcome in load.end()} <= {1, 2}


def test_r03_code_that_hangs_at_its_start_is_ended_and_the_old_code_serves(scene: Scene) -> None:
    scene.play({"a": ANSWER.format(version=1)}, a={"ready_timeout": "1s"})
    seen = len(scene.events)
    scene.write("workers/a.py", "import time\ntime.sleep(600)\n")
    reason = scene.wait("ReloadFailed", "a", after=seen)["reason"]
    assert "not ready within 1 s" in reason["words"]
    assert scene.ask("a::answer").value == 1
    assert len(scene.processes("a")) == 1


def test_r04_a_function_that_new_code_drops_is_gone_with_the_swap_and_started_calls_finish(scene: Scene) -> None:
    scene.play({"a": HOLD.format(version=1)})
    started = scene.caller.begin("a::hold")
    scene.said("a", "holding")
    scene.wait("Reloaded", "a", after=save(scene, 2))
    refused = scene.ask("a::hold")
    assert refused.code == "function_not_found"
    (scene.folder / "go").touch()
    assert started.result(30).value == 1
    assert scene.ask("a::answer").value == 2


def test_r05_a_call_that_outlasts_the_drain_ends_with_the_reload_as_reason(scene: Scene) -> None:
    scene.play({"a": HOLD.format(version=1)}, a={"drain_timeout": "500ms", "stop_timeout": "500ms"})
    started = scene.caller.begin("a::hold")
    scene.said("a", "holding")
    scene.wait("Reloaded", "a", after=save(scene, 2))
    assert scene.ask("a::answer").value == 2
    outcome = started.result(30)
    assert outcome.code == "invocation_stopped"
    assert outcome.details["reason"] == "reload"


def test_r06_two_hundred_saves_in_two_seconds_are_few_reloads_and_the_last_one_counts(scene: Scene) -> None:
    scene.play({"a": ANSWER.format(version=0)})
    began = time.monotonic()
    for version in range(1, 201):
        scene.script("a", ANSWER.format(version=version))
        time.sleep(max(0.0, began + version / 100 - time.monotonic()))  # the fault: a save every 10 ms
    eventually(lambda: scene.ask("a::answer").value == 200)
    eventually(lambda: len(scene.processes("a")) == 1)
    # Three on a machine with time, as test_dependency_graph.py holds to the millisecond. Each time the watcher has to
    # wait for a processor for longer than the debounce, the storm looks like two; it never looks like one save each.
    assert len(scene.seen("Reloaded", "a")) <= 20


def test_r07_saves_during_a_reload_are_one_more_reload(scene: Scene) -> None:
    scene.play({"a": ANSWER.format(version=0)})
    slow = "say('starting')\ntime.sleep(0.5)\n" + ANSWER
    seen = save(scene, 1, slow)
    scene.said("a", "starting", after=seen)
    save(scene, 2, slow)
    save(scene, 3, slow)
    eventually(lambda: scene.ask("a::answer").value == 3)
    generations = [event["generation"] for event in scene.seen("Reloaded", "a")]
    assert generations == sorted(set(generations))
    assert len(generations) <= 2
    eventually(lambda: len(scene.processes("a")) == 1)


def test_r08_what_changes_no_content_reloads_nothing(scene: Scene) -> None:
    scene.play({"a": ANSWER.format(version=0), "b": "on('b::answer')(lambda _: 0)\n"})
    script = scene.folder / "workers/a.py"
    script.touch()
    script.chmod(0o600)
    script.write_text(script.read_text())
    for noise in (".a.py.swp", "a.py~", "__pycache__/a.cpython-311.pyc", ".git/index", "4913"):
        scene.write(f"workers/{noise}", "noise")
    seen = len(scene.events)
    scene.script("b", "on('b::answer')(lambda _: 1)\n")  # when this is seen, the others would have been
    scene.wait("Reloaded", "b", after=seen)
    assert not scene.seen("Reloaded", "a")


def test_r09_renamed_recreated_linked_and_moved_files_are_seen_each_time(scene: Scene) -> None:
    scene.play({"a": ANSWER.format(version=0)})
    script = scene.folder / "workers/a.py"

    def saved(version: int) -> None:
        scene.wait("Reloaded", "a", count=version)
        assert scene.ask("a::answer").value == version

    scene.write("draft", HEAD + ANSWER.format(version=1)).replace(script)
    saved(1)
    script.unlink()
    scene.script("a", ANSWER.format(version=2))
    saved(2)
    target = scene.write("real/a.py", HEAD + ANSWER.format(version=3))
    script.unlink()
    script.symlink_to(target)
    saved(3)
    scene.write("real/a.py", HEAD + ANSWER.format(version=4))
    saved(4)
    (scene.folder / "workers").rename(scene.folder / "away")
    fresh = scene.write("fresh/a.py", HEAD + ANSWER.format(version=5)).parent
    (fresh / "canary.py").write_text((scene.folder / "away/canary.py").read_text())
    fresh.rename(scene.folder / "workers")
    saved(5)


def test_r10_a_save_in_two_halves_ends_with_the_whole_content(scene: Scene) -> None:
    scene.play({"a": ANSWER.format(version=1)})
    whole = HEAD + ANSWER.format(version=2) + "assert True, (\n'the end')\n"
    load = Load(scene, "a::answer")
    scene.write("workers/a.py", whole[:-12])
    time.sleep(0.05)  # the fault: an editor that writes twice
    scene.write("workers/a.py", whole)
    eventually(lambda: scene.ask("a::answer").value == 2)
    assert {outcome.value for outcome in load.end()} == {1, 2}


def test_r11_a_deleted_file_is_shown_and_named_by_the_refusals_after_a_crash(scene: Scene) -> None:
    scene.play({"a": ANSWER.format(version=1)})
    script = scene.folder / "workers/a.py"
    script.unlink()
    assert scene.row("a")["state"] == "source_missing"
    assert scene.ask("a::answer").value == 1
    scene.kill("a")
    scene.wait("Failed", "a")
    refused = scene.ask("a::answer")
    assert refused.code == "worker_unavailable"
    assert str(script) in refused.error["message"]
    scene.script("a", ANSWER.format(version=2))
    eventually(lambda: scene.ask("a::answer").error is None)


def test_r12_a_shared_module_reloads_its_workers_two_at_a_time(scene: Scene) -> None:
    names = [f"w{number}" for number in range(20)]
    scene.write("workers/shared.py", "VERSION = 1\n")
    scene.play({name: f"import shared\non('{name}::answer')(lambda _: shared.VERSION)\n" for name in names})
    scene.write("workers/shared.py", "VERSION = 2\n")
    for name in names:
        scene.wait("Reloaded", name)
        assert scene.ask(f"{name}::answer").value == 2
    spans = [(event["time"] - event["seconds"], event["time"]) for event in scene.seen("Reloaded")]
    most = max(sum(begin < moment < end for begin, end in spans) for moment, _ in [(b + 1e-4, e) for b, e in spans])
    assert most <= 2
    assert len(spans) == len(names)
    # Two at a time, without a pause between them: the whole takes half of what the starts take, and two seconds.
    whole = max(end for _, end in spans) - min(begin for begin, _ in spans)
    assert whole <= sum(event["seconds"] for event in scene.seen("Reloaded")) / 2 + 2


# Limits of a user namespace bind even root: what the kernel then says is its own.
EXHAUSTED = {
    "max_inotify_instances": ("fs.inotify.max_user_instances", errno.EMFILE),
    "max_inotify_watches": ("fs.inotify.max_user_watches", errno.ENOSPC),
}


@pytest.mark.parametrize("limit", EXHAUSTED)
def test_r13_without_inotify_one_warning_names_the_sysctl_and_polling_sees_every_save(
    ground: Ground, limit: str
) -> None:
    # An overflowing queue of events cannot be had for one process alone: test_watcher.py loses events instead.
    setting, number = EXHAUSTED[limit]
    ground.worker("a", HEAD + ANSWER.format(version=0))
    failpoint = Failpoint(ground.folder, "OSError before awatch 1")
    exhaust = f'echo 0 > /proc/sys/user/{limit}; exec "$@"'
    prefix = ("unshare", "-Ur", "sh", "-c", exhaust, "sh")
    if subprocess.run([*prefix, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
        ground.start("dev", prefix=prefix)
    else:  # no namespaces for us here: the nearest thing is the same error at the watcher's own call
        failpoint.arm()
        ground.start("dev", **PATH, **failpoint.variables, FAILPOINT_TEXT=f"no watch (os error {number})")
    assert setting in ground.await_line("the kernel cannot watch more files")
    for version in (1, 2):
        seen = len(ground.shown)
        ground.write("workers/a.py", HEAD + ANSWER.format(version=version))
        began = time.monotonic()
        ground.await_line("reloaded in", after=seen)
        assert time.monotonic() - began < 10  # half a second and a start; a machine may be busy
        assert ground.call("a::answer") == version
    assert sum("cannot watch" in line for line in ground.shown) == 1


def test_r14_of_an_exclusive_worker_two_generations_never_run_at_once(scene: Scene) -> None:
    # Without a queue in play the nearest thing to a group: calls one at a time, their intervals written down.
    body = """
@on("a::work")
def work(payload):
    begin = time.monotonic()
    time.sleep(0.01)
    with open("intervals", "a") as file:
        print(begin, time.monotonic(), os.getpid(), payload, file=file)
    return {version}
"""
    keys = {"concurrency": 1, "reload": "exclusive"}
    scene.play({"a": body.format(version=1)}, a=keys)
    calls = [scene.caller.begin("a::work", number) for number in range(100)]
    scene.wait("Reloaded", "a", after=save(scene, 2, body))
    assert {call.result(30).value for call in calls} == {1, 2}
    rows = [line.split() for line in (scene.folder / "intervals").read_text().splitlines()]
    assert [int(row[3]) for row in rows] == list(range(100))
    assert all(float(one[1]) <= float(other[0]) for one, other in itertools.pairwise(rows))


def test_r15_an_exclusive_worker_frees_its_port_first_and_no_call_fails(scene: Scene) -> None:
    body = """
import socket
port = socket.create_server(("127.0.0.1", {port}))
on("a::answer")(lambda _: {version})
"""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    scene.play({"a": body.format(port=port, version=1)}, a={"reload": "exclusive"})
    load = Load(scene, "a::answer")
    seen = len(scene.events)
    scene.script("a", body.format(port=port, version=2))
    scene.wait("Reloaded", "a", after=seen)
    assert scene.ask("a::answer").value == 2
    assert {outcome.value for outcome in load.end()} == {1, 2}


def test_r16_an_edited_project_touches_only_what_it_says(scene: Scene) -> None:
    scene.play({name: f"on('{name}::pid')(lambda _: os.getpid())\n" for name in "abc"})
    before = {name: scene.pid(name) for name in "abc"}
    whole = (scene.folder / "iii.toml").read_text()
    scene.write("iii.toml", whole + "[workers.a]\n")
    notice = scene.wait("Notice", level="warning")
    assert f"iii.toml:{whole.count(chr(10)) + 1}:" in notice["text"]
    assert {name: scene.pid(name) for name in "abc"} == before
    scene.worker("d", HEAD + "on('d::pid')(lambda _: os.getpid())\n")
    scene.write_project()
    scene.wait("Became", "d")
    assert scene.ask("d::pid").value == scene.pid("d")
    scene._tables["b"] = scene._tables["b"].replace("[workers.b]", '[workers.b]\nenv = { GREETING = "hi" }')
    scene.write_project()
    scene.wait("Reloaded", "b")
    del scene._tables["c"]
    scene.write_project()
    eventually(lambda: not scene.rows("c"))
    assert scene.ask("c::pid").code == "function_not_found"
    eventually(lambda: not scene.processes("c"))
    assert scene.pid("a") == before["a"]
    assert scene.pid("b") != before["b"]


def test_r16_a_changed_env_file_touches_only_those_it_changes(scene: Scene) -> None:
    body = "on('{0}::word')(lambda _: [os.getpid(), os.environ.get('WORD')])\n"
    scene.write(".env", "WORD=old\n")
    for name in "ab":
        scene.worker(name, HEAD + body.format(name))
    scene._tables["b"] += 'env = { WORD = "mine" }\n'
    scene.open()
    first, second = scene.ask("a::word").value, scene.ask("b::word").value
    assert (first[1], second[1]) == ("old", "mine")
    scene.write(".env", "WORD=new\n")
    scene.wait("Reloaded", "a")
    assert scene.ask("a::word").value[1] == "new"
    scene.write(".env", "WORD=newer\n")
    scene.wait("Reloaded", "a", count=2)
    assert scene.ask("b::word").value == second
