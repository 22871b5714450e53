"""The fixture `iii` beside a project's own fixture of that name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOUND = 50.0

OWN = """
import pytest

@pytest.fixture
def iii():
    return "the project's own"
"""
AROUND = """
import pytest

@pytest.fixture
def iii(iii):
    return ("around", iii.call("math::one"))
"""
WORKER = """
from iii import register_worker

register_worker().register_function("math::one", lambda payload: 1)
"""


def run_project(folder: Path, conftest: str, test: str) -> subprocess.CompletedProcess[str]:
    files = {"iii.toml": '[workers.math]\nrun = "math_worker.py"\n', "math_worker.py": WORKER}
    files |= {"conftest.py": conftest, "test_it.py": test, "own_fixtures.py": OWN}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=BOUND, check=False
    )


FAILING = """
def test_order(iii):
    worker = iii.worker("shop")

    def reserve(item):
        raise ValueError("out of tea")

    worker.register_function("shop::reserve", reserve)
    worker.register_function("shop::order", lambda item: worker.trigger("shop::reserve", item))
    assert iii.call("math::one") == 1
    iii.call("shop::order", "tea")
"""


def test_a_failed_test_shows_the_handlers_traceback_and_its_calls_as_a_tree(tmp_path):
    run = run_project(tmp_path, "", FAILING)
    assert run.returncode == 1
    # In CI, pytest repeats the whole failure in its summary.
    shown, _, _ = run.stdout.partition("short test summary")
    raised, _, calls = shown.partition("iii: calls of this test")
    assert "in reserve" in raised
    assert "ValueError: out of tea" in raised
    assert [line.partition("  (")[0] for line in calls.splitlines() if "  (" in line] == [
        "math::one",
        "shop::order",
        "  shop::reserve",
    ]


@pytest.mark.parametrize(
    ("conftest", "test"),
    [
        ("", "def test(iii):\n    assert iii.call('math::one') == 1\n"),
        (OWN, 'def test(iii):\n    assert iii == "the project\'s own"\n'),
        ("", f'{OWN}\ndef test(iii):\n    assert iii == "the project\'s own"\n'),
        ('pytest_plugins = ["own_fixtures"]\n', 'def test(iii):\n    assert iii == "the project\'s own"\n'),
        (AROUND, "def test(iii):\n    assert iii == ('around', 1)\n"),
    ],
    ids=["none", "in the conftest", "in the test module", "in a plugin of the conftest", "around the plugin's"],
)
def test_a_fixture_of_the_projects_own_wins_and_may_use_the_plugins(tmp_path, conftest, test):
    run = run_project(tmp_path, conftest, test)
    assert run.returncode == 0, run.stdout + run.stderr
