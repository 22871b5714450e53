"""The benchmark harness measures what it says; how fast anything is, is no matter of tests."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.__main__ import guard, names
from benchmarks.b7 import bystanders
from benchmarks.environment import python_of_peers
from benchmarks.harness import Comparison, Load, Row, interleave
from benchmarks.lines import APPS, counts, lines_of
from benchmarks.native import STAND_INS
from benchmarks.notes import NOTES
from benchmarks.report import page, table
from benchmarks.setups import Engine, Relay, worker_table


def row(measured: Sequence[float], baseline: Sequence[float], *, smaller_is_better: bool = True) -> Row:
    return Comparison("B1", "engine", "µs", 1.5, smaller_is_better).row(measured, baseline)


def test_a_ratio_pairs_the_rounds_so_that_drift_cancels() -> None:
    drifting = row([10.0, 20.0, 400.0], [10.0, 20.0, 400.0])
    assert (drifting.low, drifting.ratio, drifting.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("measured", "smaller_is_better", "verdict"),
    [(14.0, True, "pass"), (16.0, True, "miss"), (16.0, False, "pass"), (14.0, False, "miss")],
)
def test_a_target_is_met_or_missed_in_its_direction(measured: float, smaller_is_better: bool, verdict: str) -> None:
    assert row([measured], [10.0], smaller_is_better=smaller_is_better).verdict == verdict


def test_cost_grows_as_a_ratio_gets_worse_in_either_direction() -> None:
    assert row([30.0], [10.0]).cost == pytest.approx(2.0)
    assert row([7.5], [10.0], smaller_is_better=False).cost == pytest.approx(2.0)


def test_rounds_are_interleaved_and_the_first_is_not_counted() -> None:
    order: list[str] = []
    setups = {name: lambda name=name: order.append(name) or len(order) for name in ("a", "b")}
    assert interleave(setups, 3) == {"a": [3, 5], "b": [4, 6]}
    assert order == ["a", "b"] * 3


def test_the_table_lines_up() -> None:
    lines = table([row([1.0], [1.0]), row([123456.0], [1.0])]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "| miss |" in lines[-1]


def test_a_miss_is_recorded_with_what_is_known_of_it() -> None:
    assert "## Missed" not in page([row([14.0], [10.0])])
    text = page([row([16.0], [10.0])])
    assert f"- **B1, engine** (1.60x): {NOTES['B1']}" in text


def test_every_benchmark_with_a_target_has_a_note() -> None:
    assert {name.upper() for name in names()} - NOTES.keys() == {"B0"}


@pytest.mark.parametrize(
    ("measured", "load", "code"),
    [
        ([15.0, 29.0], 0.5, 0),
        ([29.0, 99.0, 99.0], 0.5, 0),  # one round was good enough: the others were disturbed
        ([31.0, 40.0], 0.5, 1),
        ([31.0, 40.0], 9.0, 0),  # nobody can measure here
    ],
)
def test_the_guard_fails_only_on_a_ratio_twice_off_in_each_round(
    measured: list[float], load: float, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guard([row(measured, [10.0] * len(measured))], load) == code
    assert ("regression: B1 engine" in capsys.readouterr().err) == (min(measured) > 30)


def test_workers_beside_the_ends_are_started_before_the_caller(tmp_path: Path) -> None:
    project = Engine(beside=bystanders(tmp_path, 3, 2)).project(tmp_path / "report", Load(1, 1), -1)
    tables = tomllib.loads(project)["workers"]
    assert tables["caller"]["after"] == ["idle0", "idle1", "idle2"]
    words = shlex.split(tables["idle2"]["run"])
    assert words[:2] == ["sh", "-c"]
    lines = (tmp_path / "words-2-2").read_text().splitlines()
    assert [json.loads(line).get("id") for line in lines] == ["idle2::f0", "idle2::f1", None]


def test_peers_that_cannot_be_installed_are_skipped_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def refuse(folder: Path, packages: list[str]) -> None:
        assert "Pyro5" in packages[0]
        (folder / "half").touch()
        raise subprocess.CalledProcessError(1, "pip", stderr="ERROR: one\nERROR: no registry\n")

    assert python_of_peers(refuse) is None
    assert capsys.readouterr().err.endswith("skipped, the peers cannot be installed: ERROR: no registry\n")
    assert list((tmp_path / "iii-benchmarks").iterdir()) == []


def test_a_script_gets_its_settings_as_config_and_a_program_as_arguments() -> None:
    assert 'run = "/bin/x 1"' in worker_table("callee", None, ["/bin/x", "1"], {"cpu": 1})
    assert "[workers.callee.config]\ncpu = 1" in worker_table("callee", "sdk_callee.py", [], {"cpu": 1})


@pytest.mark.parametrize("window", [1, 8])
def test_the_minimal_ends_meet_over_the_floor(window: int) -> None:
    sample = Relay().run(Load(window, 200))
    assert 0 < sample.p50_us <= sample.p99_us


def test_the_ends_without_a_compiler_speak_the_same_words() -> None:
    stand_ins = {name: (sys.executable, str(path)) for name, path in STAND_INS.items()}
    assert Relay(program=stand_ins.__getitem__).run(Load(8, 100, size=1000)).calls_per_s > 0


def test_a_caller_that_dies_is_an_error_and_not_a_wait() -> None:
    with pytest.raises(RuntimeError, match="no figures"):
        Relay(program=lambda _: ("false",)).run(Load(1, 1))


def test_what_is_counted_of_an_app_is_its_code_and_configuration(tmp_path: Path) -> None:
    code = [
        '"""About."""',
        "",
        "# why",
        "def f():",
        '    """Do."""',
        "    return (",
        '        """a',
        "",
        '    b"""',
        "    )",
    ]
    (tmp_path / "app.py").write_text("\n".join(code) + "\n")
    (tmp_path / "iii.toml").write_text("# about\n\n[workers.a]\nrun = 'a.py'  # why\n")
    (tmp_path / "tool.ts").write_text("// about\nlet a = 1\n")
    (tmp_path / "README.md").write_text("a\nb\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_app.py").write_text("pass\n")
    assert lines_of(tmp_path) == 6 + 2 + 1


@pytest.mark.parametrize("app", APPS)
def test_an_example_has_no_more_lines_than_the_same_app_in_fastapi_and_celery(app: str) -> None:
    ours, theirs = counts()[app]
    assert 0 < ours <= theirs
