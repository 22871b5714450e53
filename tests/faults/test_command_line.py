"""Group C, the command line and the folder around it: arguments, pipes, absent engines, odd places, Ctrl-C."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from iii.engine.boot.stale_processes import read_runs
from tests.support.ground import BOUND, Ground, clean_environment, eventually
from tests.support.scene import HEAD, Scene

ECHO = """
@on("shop::echo")
def echo(payload):
    return payload
@on("shop::size")
def size(payload):
    return len(payload["text"])
"""


def iii(
    folder: Path, words: Sequence[str], *, stdin: str = "", prefix: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "cli.main", *words],
        cwd=folder,
        env=clean_environment(**environment),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )


def test_c07_a_call_from_the_terminal_is_exact_about_what_is_wrong(scene: Scene) -> None:
    scene.play({"shop": ECHO})
    broken = iii(scene.folder, ["trigger", "shop::echo", "--json", '{"a": 1, bad'])
    assert broken.returncode == 2
    message, source, caret = broken.stderr.splitlines()
    assert "--json: invalid JSON" in message
    assert source[caret.index("^")] == "b"
    # One argument of a process ends at 128 KiB on Linux: five megabytes come through stdin.
    large = json.dumps({"text": "x" * 100_000})
    assert iii(scene.folder, ["trigger", "shop::size", "--json", large]).stdout == "100000\n"
    larger = json.dumps({"text": "x" * 5_000_000})
    assert iii(scene.folder, ["call", "shop::size", "--json", "-"], stdin=larger).stdout == "5000000\n"
    missing = iii(scene.folder, ["trigger", "shop::ecko"])
    assert missing.returncode == 1
    assert "not found" in missing.stderr
    assert "shop::echo" in missing.stderr
    assert missing.stdout == ""


def test_c08_closed_and_narrow_outputs_are_no_reason_to_fail(scene: Scene) -> None:
    scene.play({"shop": ECHO + "say('söme text \U0001f600')\n"})
    scene.await_log("shop", "text")
    module = f"{sys.executable} -m cli.main"
    for words, code in (("logs | true", 141), ("functions | true", 141), ("ps >&-", 0), ("logs >&-", 0)):
        script = f"set -o pipefail; {module} {words}"
        done = iii(scene.folder, [], prefix=["bash", "-c", script, "--"])
        assert done.returncode in (0, code), (words, done)
        assert "Traceback" not in done.stderr, done.stderr
    for environment in ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}, {"COLUMNS": "0"}):
        for words in (["logs"], ["ps"], ["top", "--once"], ["trigger", "shop::echo", "a=\u20ac"]):
            done = iii(scene.folder, words, **environment)
            assert (done.returncode, done.stderr) == (0, ""), (words, environment, done.stderr)


def test_c09_without_an_engine_a_command_says_so_at_once(tmp_path: Path) -> None:
    for words in (["ps"], ["trigger", "a::b"], ["functions"], ["top"], ["worker", "restart", "a"]):
        done = iii(tmp_path, words)
        assert done.returncode == 3
        assert done.stderr == "error: no engine is running; start one with `iii dev`\n"
    done = iii(tmp_path, ["ps", "--engine", str(tmp_path / "nothing.sock")])
    assert (done.returncode, "no engine answers at" in done.stderr) == (3, True)


def test_c09_an_engine_of_another_version_is_noted_and_a_wrong_token_is_named(scene: Scene) -> None:
    scene.head = '[engine]\nlisten = "127.0.0.1:0"\n'
    scene.play({"shop": ECHO})
    facts = scene.facts()
    file = scene.folder / ".iii/run/engine.json"
    file.write_text(json.dumps({**facts, "version": "0.0.1"}))
    note = f"note: the engine is iii 0.0.1 and this is iii {facts['version']}; stop it and start it anew\n"
    assert iii(scene.folder, ["ps"]).stderr == note
    failed = iii(scene.folder, ["trigger", "shop::missing"])
    assert (failed.returncode, failed.stderr.endswith(note)) == (1, True)
    file.write_text(json.dumps(facts))
    assert iii(scene.folder, ["ps"]).stderr == ""
    refused = iii(scene.folder, ["ps", "--engine", facts["url"]], III_TOKEN="wrong")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "does not let us in (HTTP 401); III_TOKEN must be what `iii token` prints" in refused.stderr


def test_c09_a_frozen_engine_is_given_up_at_the_timeout(scene: Scene) -> None:
    scene.laws.remove("canary")
    scene.play({"shop": ECHO})
    pid = scene.engine_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        done = iii(scene.folder, ["trigger", "shop::echo", "--timeout-ms", "500"])
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (done.returncode, done.stderr) == (
        3,
        "error: the engine does not answer; start one with `iii dev`\n",
    )


def test_c10_a_path_too_long_for_a_socket_works(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / ("deeper" * 20)
    folder.mkdir(parents=True)
    ground = Ground(folder)
    try:
        ground.worker("shop", HEAD + ECHO)
        ground.start("dev", XDG_RUNTIME_DIR=str(tmp_path))
        assert len(str(folder / ".iii/run/engine.sock")) > 108
        assert iii(folder, ["trigger", "shop::echo", "a=1"]).stdout == '{"a": 1}\n'
        assert stat.S_IMODE((tmp_path / "iii").stat().st_mode) == 0o700
    finally:
        ground.close()


def test_c11_whatever_the_umask_everything_of_ours_is_private(ground: Ground) -> None:
    ground.worker("shop", HEAD + ECHO + "say('a line')\n")
    ground.start("dev", prefix=("sh", "-c", 'umask 000; exec "$@"', "sh"))
    ground.await_log("shop", "a line")
    paths = [ground.folder / ".iii", *(ground.folder / ".iii").rglob("*")]
    modes = {str(path.relative_to(ground.folder)): stat.S_IMODE(path.lstat().st_mode) for path in paths}
    assert {".iii/run/engine.json", ".iii/run/engine.sock", ".iii/run/lock", ".iii/logs/shop.log"} <= modes.keys()
    wrong = {
        name: oct(mode) for name, mode in modes.items() if mode != (0o700 if (ground.folder / name).is_dir() else 0o600)
    }
    assert wrong == {}


@pytest.mark.parametrize("fault", ["read-only", "a file", "a link"])
def test_c11_a_state_folder_that_cannot_be_ours_is_a_clear_message(fault: str, tmp_path: Path) -> None:
    (tmp_path / "iii.toml").write_text('[engine]\nlisten = "off"\n[workers.a]\nrun = "a.py"\n')
    (tmp_path / "a.py").write_text("")
    prefix: tuple[str, ...] = ()
    if fault == "a file":
        (tmp_path / ".iii").write_text("")
    elif fault == "a link":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / ".iii").symlink_to("elsewhere")
    else:
        tmp_path.chmod(0o555)
        # Root may write anywhere; without its capabilities it is a user like any other.
        prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.getuid() == 0 else ()
    try:
        done = iii(tmp_path, ["dev"], prefix=prefix)
    finally:
        tmp_path.chmod(0o755)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert ".iii" in line


# Python drops an interrupt that comes in some places of an import, and native modules are left half made.
SWALLOWED = """
import signal, sys
class InTheMiddle:
    def find_spec(self, name, path, target=None):
        if name == "msgspec":
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                pass
sys.meta_path.insert(0, InTheMiddle())
sys.argv = ["iii", *sys.argv[1:]]
from cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize("words", [["dev"], ["start"], ["dev", "one", "--json"]], ids=" ".join)
def test_c12_an_interrupt_in_the_middle_of_an_import_is_not_lost(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "iii.toml").write_text('[engine]\nlisten = "off"\n[workers.one]\nrun = "one.py"\n')
    (tmp_path / "one.py").write_text("print('begun')\n")
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGINT
    assert (done.stdout, done.stderr) == ("", "")


def interrupt(folder: Path, moments: int) -> None:
    """Start the engine and interrupt it at random moments of its start; nothing may be left."""
    ground = Ground(folder)
    ground.laws = {"traceback"}
    for name in ("one", "two"):
        ground.worker(name, HEAD)
    rng = random.Random(12)
    for _ in range(moments):
        running = ground.launch("dev")
        time.sleep(rng.random() * 0.8)  # the moment is the test
        running.send_signal(signal.SIGINT)
        code = ground.await_exit()
        complaints = "".join(ground.complaints)
        if re.search(r"cli/main\.py\", line \d+, in main", complaints) or "KeyboardInterrupt" not in complaints:
            assert code in (0, 130, -signal.SIGINT), ground.output  # the last: before Python looks at signals
            assert "Traceback" not in complaints, complaints
        # else the interpreter itself was not up yet: how it ends then is Python's
        ground.complaints.clear()
        ground._run_ids |= {run.run_id for run in read_runs(folder / ".iii/run/runs")}
        eventually(lambda: not ground.left())


def test_c12_an_interrupted_start_leaves_nothing(tmp_path: Path) -> None:
    # A start that was far enough to stop its workers in order exits with 0, an earlier one with 130.
    interrupt(tmp_path, 6)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_c12_fifty_interrupted_starts_leave_nothing(tmp_path: Path) -> None:
    interrupt(tmp_path, 50)


def test_c13_stop_ends_the_engine_and_never_a_stranger(scene: Scene) -> None:
    scene.play({"shop": ECHO})
    done = iii(scene.folder, ["stop"])
    assert (done.returncode, done.stdout.startswith("stopped in ")) == (0, True)
    assert scene.await_exit() == 0
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        (scene.folder / ".iii/run/lock").write_text(str(stranger.pid))
        again = iii(scene.folder, ["stop"])
        assert (again.returncode, "no engine is running" in again.stderr) == (3, True)
        assert stranger.poll() is None
        stranger.kill()


def test_c14_what_looks_like_an_option_is_a_value_where_it_stands_for_one(scene: Scene) -> None:
    scene.play({"shop": ECHO})
    done = iii(scene.folder, ["trigger", "shop::echo", "a=--json", "b=-n", "--", "--void=x", "-h=y"])
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"a": "--json", "b": "-n", "--void": "x", "-h": "y"}
    assert json.loads(iii(scene.folder, ["trigger", "shop::echo", "--json", '"--"']).stdout) == "--"
