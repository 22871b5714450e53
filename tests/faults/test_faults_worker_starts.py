"""W06, W07, W18, W19: workers that do not come up, or grow too large to stay."""

from __future__ import annotations

import signal

from tests.support.ground import eventually
from tests.support.scene import HEAD, Scene, is_alive

GOOD = "on('a::answer')(lambda _: 42)\n"
BROKEN = "import a_module_that_nobody_has\n"


def test_w06_a_script_that_cannot_be_imported_is_tried_once_and_mended_by_a_save(scene: Scene) -> None:
    scene.play({"a": BROKEN, "b": "on('b::answer')(lambda _: 1)\n"})
    failed = scene.wait("Failed", "a")
    assert scene.row("a")["generation"] == 1
    assert scene.row("a")["state"] == "failed"
    assert failed["reason"]["error"]["file"] == "workers/a.py"
    assert scene.ask("b::answer").value == 1
    scene.script("a", GOOD)
    scene.wait("Became", "a")
    assert scene.ask("a::answer").value == 42
    scene.measure()  # the first time that all workers run


def test_w06_calls_to_a_failed_worker_are_refused_with_its_last_words(scene: Scene) -> None:
    scene.play({"a": GOOD})
    scene.script("a", BROKEN)
    scene.wait("ReloadFailed", "a")
    assert scene.ask("a::answer").value == 42
    scene.kill("a")
    scene.wait("Failed", "a")
    refused = scene.ask("a::answer")
    assert refused.code == "worker_unavailable"
    assert refused.details["state"] == "failed"
    assert "a_module_that_nobody_has" in "\n".join(refused.details["stderr"])
    assert (refused.details["file"], refused.details["line"]) == ("workers/a.py", HEAD.count("\n") + 1)
    scene.script("a", GOOD)
    eventually(lambda: scene.ask("a::answer").error is None)


def test_w07_a_worker_that_never_says_ready_is_terminated_then_killed(scene: Scene) -> None:
    script = scene.write(
        "workers/a.py", "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.pause()\n"
    )
    scene.worker("a", script.read_text(), ready_timeout="0.5s", stop_timeout="0.5s", restart="on-failure")
    scene.open()
    reason = scene.wait("Failed", "a")["reason"]
    assert reason["signal"] == signal.SIGKILL
    assert reason["cause"] == "not ready"
    assert "not ready within 0.5 s (did the script call register_worker()?)" in reason["words"]
    assert not reason["blamed"]


def test_w18_a_worker_over_its_memory_limit_ends_with_the_limit_in_the_error(scene: Scene) -> None:
    body = """
@on("a::grow")
def grow(payload):
    hoard = bytearray(os.urandom(1024) * 1024 * payload)
    say("grown")
    time.sleep(60)
    return len(hoard)
on("a::pid")(lambda _: os.getpid())
"""
    scene.play({"a": body, "b": "on('b::pid')(lambda _: os.getpid())\n"}, a={"max_memory": "84MB"})
    old, other = scene.pid("a"), scene.pid("b")
    outcome = scene.ask("a::grow", 128)
    assert outcome.code == "invocation_stopped"
    assert outcome.details["reason"] == "worker_exited"
    assert "over its limit of 84 MB" in outcome.error["message"]
    assert scene.ask("a::pid").value != old
    assert scene.ask("b::pid").value == other


def test_w19_what_can_never_start_fails_at_once_with_path_and_reason(scene: Scene) -> None:
    faults = {"missing": "No such file", "locked": "Permission denied", "lost": "/nowhere/interpreter"}
    for name in faults:
        scene.program(name, "")
        scene._tables[name] = f'[workers.{name}]\nrun = "./workers/{name}.sh"\n'
    scene.write("workers/locked.sh", "#!/bin/sh\n")
    scene.write("workers/lost.sh", "#!/nowhere/interpreter\n").chmod(0o700)
    scene.worker("b", HEAD + "on('b::answer')(lambda _: 1)\n")
    scene.open()
    for name, words in faults.items():
        reason = scene.wait("Failed", name)["reason"]
        assert f"workers/{name}.sh" in reason["words"]
        assert words in reason["words"]
        assert not scene.seen("Exited", name)
        assert scene.row(name)["generation"] == 1
    assert scene.ask("b::answer").value == 1


def test_w19_a_script_that_vanished_is_not_tried_again_until_it_is_back(scene: Scene) -> None:
    scene.play({"a": GOOD})
    script = scene.folder / "workers/a.py"
    script.unlink()
    pid = scene.kill("a")
    words = scene.wait("Failed", "a")["reason"]["words"]
    assert str(script) in words
    assert "ENOENT" in words
    assert not is_alive(pid)
    scene.script("a", GOOD)
    eventually(lambda: scene.ask("a::answer").error is None)
