"""Group C, the project file: whatever is wrong with it is one line that says where, what, and what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.ground import BOUND, clean_environment
from tests.support.scene import HEAD, Scene

Check = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Return a function that writes iii.toml and runs `iii check` (or other words) beside it."""

    def run(text: str | bytes | None, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        if text is not None:
            (tmp_path / "iii.toml").write_bytes(text.encode() if isinstance(text, str) else text)
        (tmp_path / "a.py").touch()
        command = [sys.executable, "-m", "cli.main", *(words or ("check",))]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=clean_environment(**environment),
            capture_output=True,
            text=True,
            timeout=BOUND,
            check=False,
        )

    return run


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of an error in the project; nothing else may have been written."""
    assert (done.returncode, done.stdout) == (2, ""), done
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")


UNREADABLE = {
    "syntax": (b"[workers.a\nrun = 1", "iii.toml:1:11: expected ']' at the end of a table declaration"),
    "deep syntax": (b'[workers.a]\nrun = "a.py"\nafter = [,]\n', "iii.toml:3:10: "),
    "not utf-8": (b"\xff\xfe[", "iii.toml:1:1: the byte 0xff is not UTF-8"),
    "empty": (b"", "iii.toml:1:1: no workers are declared; add a [workers.NAME] table"),
    "10 MB": (b"# " + b"x" * 10_000_000, "iii.toml: cannot be read: larger than 1024 KiB"),
}


@pytest.mark.parametrize("case", UNREADABLE)
@pytest.mark.parametrize("command", ["check", "dev"])
def test_c01_a_file_that_cannot_be_read_is_one_line(case: str, command: str, check: Check) -> None:
    content, words = UNREADABLE[case]
    assert refused(check(content, command)).startswith(words)


def test_c01_a_folder_or_nothing_in_its_place_is_one_line(check: Check, tmp_path: Path) -> None:
    assert refused(check(None, "check", "--file", "nope.toml")).startswith("nope.toml: no such file; ")
    (tmp_path / "iii.toml").mkdir()
    done = check(None)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no iii.toml here or above\nmake a project with `iii init`\n"


def test_c02_an_unknown_key_names_the_nearest(check: Check) -> None:
    line = refused(check('[workers.a]\nrun = "a.py"\nwacth = []\n'))
    assert line.startswith("iii.toml:3:1: unknown key")
    assert "did you mean watch?" in line.replace("`", "")


WRONG = {
    "instances = 0": ("instances", "0"),
    "instances = -1": ("instances", "-1"),
    "instances = 99999999999": ("instances", "99999999999"),
    "instances = nan": ("instances", "nan"),
    'instances = "two"': ("instances", "two"),
    "concurrency = 0": ("concurrency", "0"),
    "ready_timeout = 5": ("ready_timeout", "5"),
    'ready_timeout = "0s"': ("ready_timeout", "0s"),
    'ready_timeout = "-1s"': ("ready_timeout", "-1s"),
    'ready_timeout = "9999h"': ("ready_timeout", "9999h"),
    'max_memory = "0"': ("max_memory", "0"),
    'max_memory = "much"': ("max_memory", "much"),
    'restart = "sometimes"': ("restart", "sometimes"),
    "env = 5": ("env", "5"),
}


@pytest.mark.parametrize("row", WRONG)
def test_c03_a_wrong_value_names_its_key_itself_and_what_is_allowed(row: str, check: Check) -> None:
    key, value = WRONG[row]
    line = refused(check(f'[workers.a]\nrun = "a.py"\n{row}\n'))
    assert line.startswith("iii.toml:3:")
    assert key in line
    assert value in line


@pytest.mark.parametrize("second", ["a", "A"])
def test_c04_a_name_that_stands_twice_is_refused_with_its_line(second: str, check: Check) -> None:
    line = refused(check(f'[workers.a]\nrun = "a.py"\n\n[workers.{second}]\nrun = "a.py"\n'))
    assert line.startswith("iii.toml:4:")
    assert second in line


def test_c04_names_that_differ_by_case_name_both_lines(check: Check) -> None:
    assert "line 1" in refused(check('[workers.a]\nrun = "a.py"\n\n[workers.A]\nrun = "a.py"\n'))


def test_c05_a_missing_variable_is_named_and_a_present_one_never_shown(check: Check) -> None:
    text = '[workers.a]\nrun = "a.py"\nenv = { ONE = "${PRESENT}", TWO = "${ABSENT}" }\n'
    line = refused(check(text, PRESENT="a-secret-value"))
    assert line.startswith("iii.toml:3:")
    assert "ABSENT" in line
    assert "a-secret-value" not in line
    assert "a-secret-value" not in check(text, PRESENT="a-secret-value", ABSENT="x").stdout


NAMES = ["with space.py", "quo'te\".py", "ünïcode-\U0001f600.py", "-dash.py", "$(touch pwned).py", "semi;colon&.py"]


def test_c06_scripts_with_any_name_run_and_no_shell_sees_them(scene: Scene) -> None:
    for number, name in enumerate(NAMES):
        body = f"on('named{number}::argv')(lambda payload: sys.argv)"
        scene.write(f"workers/{name}", HEAD + body)
        scene.worker(f"named{number}", "", run=f"workers/{name}")
    outside = scene.folder.parent / f"{scene.folder.name}-outside.py"
    outside.write_text(HEAD + "on('outside::call')(lambda payload: payload)")
    scene.worker("outside", "", run=str(outside))
    scene.open()
    for number, name in enumerate(NAMES):
        assert scene.call(f"named{number}::argv") == [str(scene.folder / "workers" / name)]
    assert scene.call("outside::call", 1) == 1
    assert not (scene.folder / "pwned").exists()


def test_c06_arguments_of_a_command_reach_it_as_they_are(scene: Scene) -> None:
    line = f"{sys.executable} workers/argued.py '$(touch pwned)' \"two words\" -- -x '*'"
    scene.program("argued", "offer('argued::argv')\nwhile True: answer(take(), sys.argv[1:])", run=line)
    scene.open()
    assert scene.call("argued::argv") == ["$(touch pwned)", "two words", "--", "-x", "*"]
    assert not (scene.folder / "pwned").exists()


def test_c06_a_link_that_leads_to_itself_is_a_clear_error(check: Check, tmp_path: Path) -> None:
    (tmp_path / "loop.py").symlink_to("loop.py")
    assert "there is no file loop.py" in refused(check('[workers.a]\nrun = "loop.py"\n'))
