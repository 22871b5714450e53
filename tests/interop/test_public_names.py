"""Every public name of the published Python SDKs is ours too, or docs/migration.md gives the reason."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.support import official

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "support" / "official_names.py"
PAGE = ROOT / "docs" / "migration.md"


def names_with(python: Path | str) -> set[str]:
    """Return the names of the `iii` that an interpreter imports."""
    done = subprocess.run([str(python), str(SCRIPT)], capture_output=True, text=True, timeout=40, check=True)
    return set(json.loads(done.stdout))


@pytest.fixture(scope="module")
def ours() -> set[str]:
    # What a constructor takes is an attribute of the object, also where the class does not say so.
    names = names_with(sys.executable)
    return names | {re.sub(r"\((\w+)\)$", r".\1", name) for name in names}


def missing_names(version: str, ours: set[str]) -> set[str]:
    """Return what a version has and ours lacks; parts of what is missing are not named again."""
    missing = names_with(official.python_with(version)) - ours
    return {name for name in missing if not any(name.startswith((f"{whole}.", f"{whole}(")) for whole in missing)}


def documented() -> list[str]:
    """Return the patterns of the page's table: names, or with a star for any argument."""
    table = PAGE.read_text(encoding="utf-8").partition("<!-- missing names -->")[2]
    return [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(.*?)`", row)]


def test_names_are_found_at_all(ours: set[str]) -> None:
    assert {"iii.register_worker(address)", "Worker.trigger_async(request)", "iii.errors.InvocationError.code"} <= ours
    assert len(ours) > 200


@pytest.mark.parametrize("version", ["0.21.6", "0.23.0", "0.25.0"])
def test_what_is_missing_stands_in_the_migration_page(version: str, ours: set[str]) -> None:
    missing = missing_names(version, ours)
    assert [name for name in sorted(missing) if not any(fnmatchcase(name, each) for each in documented())] == []


def test_the_migration_page_names_nothing_that_is_here(ours: set[str]) -> None:
    missing = missing_names("0.21.6", ours) | missing_names("0.25.0", ours)
    assert [each for each in documented() if not any(fnmatchcase(name, each) for name in missing)] == []
