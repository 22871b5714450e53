"""`iii doctor`: every question has an answer in words, and what to do when it is a bad one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli.project import health_checks
from cli.project.health_checks import Finding, SdkPackage
from tests.support.command import Iii


def only(findings: object) -> Finding:
    (finding,) = list(findings)  # type: ignore[call-overload]
    assert isinstance(finding, Finding)
    return finding


def test_a_healthy_project_has_nothing_to_mend(folder: Path, iii: Iii) -> None:
    (folder / "iii.toml").write_text('[engine]\nlisten = "off"\n[workers.a]\nrun = "a.py"\n[workers.b]\nrun = "sh b"\n')
    (folder / "a.py").touch()
    done = iii("doctor")
    assert done.returncode == 0, done.stdout
    assert {line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")} <= {"ok", "warn"}
    checks = json.loads(iii("doctor", "--json").stdout)["checks"]
    assert {"name": "engine", "state": "ok", "text": "not running", "hint": ""} in checks
    assert any(check["text"].startswith("worker b: /") for check in checks)


def test_what_cannot_work_exits_with_1_and_says_what_to_do(folder: Path, iii: Iii) -> None:
    (folder / "iii.toml").write_text('[engine]\nlisten = "off"\n[workers.web]\nrun = "no-such-program x"\n')
    done = iii("doctor")
    assert done.returncode == 1
    assert "iii.toml:4:1: run: there is no program no-such-program; install it" in done.stdout


def test_a_broken_project_or_none_is_told(folder: Path, iii: Iii) -> None:
    assert "there is no iii.toml here or above" in iii("doctor").stdout
    (folder / "iii.toml").write_text("[workers\n")
    done = iii("doctor")
    assert (done.returncode, "iii.toml:1:" in done.stdout) == (1, True)


def test_an_old_python_fails() -> None:
    assert health_checks.check_python((3, 10, 1)).state == "fail"
    assert health_checks.check_python((3, 11, 0)).state == "ok"


def test_missing_packages_are_named() -> None:
    all_there: dict[str, str | None] = dict.fromkeys(health_checks.PACKAGES, "1.0")
    assert only(health_checks.check_packages(all_there)).state == "ok"
    assert only(health_checks.check_packages({**all_there, "orjson": None})).text == "missing: orjson"


@pytest.mark.parametrize(
    ("package", "listens", "state", "words"),
    [
        (None, True, "ok", "a, b: ours"),
        (SdkPackage("iii-engine", "0.1.0", "/x/iii/__init__.py"), False, "ok", "a, b: iii-engine 0.1.0"),
        (SdkPackage("iii-sdk", "0.25.0", "/x/iii/__init__.py"), True, "ok", "the official iii-sdk 0.25.0"),
        (SdkPackage("iii-sdk", "0.25.0", "/x/iii/__init__.py"), False, "fail", "the official iii-sdk 0.25.0"),
        (SdkPackage("iii", "3.0", "/x/iii/__init__.py"), True, "fail", "belongs to iii 3.0, not to an SDK"),
    ],
)
def test_it_says_which_sdk_workers_import(package: SdkPackage | None, listens: bool, state: str, words: str) -> None:
    finding = health_checks.check_sdk(["a", "b"], "/x/python", package, listens=listens)
    assert (finding.state, words in finding.text) == (state, True), finding


def test_an_interpreter_is_asked_whose_iii_it_loads(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    python = str(bare / "bin" / "python")
    assert health_checks.sdk_package(python) is None
    packages = next((bare / "lib").glob("python3*/site-packages"))
    (packages / "iii.py").write_text("")
    package = health_checks.sdk_package(python)
    assert package is not None
    assert (package.name, package.file) == ("another program", str(packages / "iii.py"))
    with pytest.raises(OSError):
        health_checks.sdk_package(str(tmp_path / "gone"))


@pytest.mark.parametrize(("soft", "state"), [(64, "warn"), (1023, "warn"), (1024, "ok"), (-1, "ok")])
def test_few_open_files_are_a_warning(soft: int, state: str) -> None:
    assert health_checks.check_open_files(soft, 4096).state == state


def test_small_inotify_limits_name_their_sysctl() -> None:
    finding = health_checks.check_inotify({"max_user_watches": 100, "max_user_instances": 128})
    assert (finding.state, "fs.inotify.max_user_watches=8192" in finding.hint) == ("warn", True)
    assert health_checks.check_inotify({}).state == "ok"


def test_a_taken_address_names_its_holder_unless_it_is_ours() -> None:
    listen = "127.0.0.1:49134"
    assert health_checks.check_listener(listen, is_free=True, holder="", is_ours=False).state == "ok"
    assert health_checks.check_listener(listen, is_free=False, holder="iii (pid 7)", is_ours=True).state == "ok"
    assert (
        "node (pid 8)" in health_checks.check_listener(listen, is_free=False, holder="node (pid 8)", is_ours=False).text
    )


def test_files_that_others_may_read_are_named(tmp_path: Path) -> None:
    state = tmp_path / ".iii"
    assert health_checks.check_state(state).state == "ok"
    state.mkdir(mode=0o700)
    (state / "engine.sock").touch(mode=0o600)
    assert health_checks.check_state(state).state == "ok"
    (state / "state.db").touch(mode=0o644)
    finding = health_checks.check_state(state)
    assert (finding.state, finding.text) == ("fail", "others may read .iii/state.db")


def test_a_killed_engine_is_told_from_one_that_runs() -> None:
    assert health_checks.check_engine(7, is_announced=True).text == "runs with pid 7"
    assert health_checks.check_engine(None, is_announced=True).state == "warn"


def test_what_init_and_check_make_is_private(folder: Path, iii: Iii) -> None:
    assert iii("init").returncode == 0
    assert iii("check").returncode == 0
    assert health_checks.check_state(folder / ".iii").state == "ok"


def test_workers_that_have_failed_are_named_with_their_error() -> None:
    error = {"text": "SyntaxError: invalid syntax", "file": "a.py", "line": 3}
    rows: list[dict[str, object]] = [
        {"name": "a", "state": "failed", "last_error": error, "last_exit": "exited with code 1"},
        {"name": "b", "state": "failed", "last_error": None, "last_exit": "killed by SIGKILL"},
        {"name": "c", "state": "ready"},
    ]
    finding = health_checks.check_workers(rows)
    assert (finding.state, finding.text) == ("fail", "a: SyntaxError: invalid syntax (a.py:3); b: killed by SIGKILL")
    assert health_checks.check_workers(rows[2:]).state == "ok"
