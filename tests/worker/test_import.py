"""Importing the SDK stays cheap: what it loads decides how fast a worker starts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import iii
import iii.errors
import iii.testing
from iii import Worker

ROOT = Path(__file__).resolve().parents[2]
TOO_HEAVY = {"asyncio", "inspect", "dataclasses", "typing", "json", "re", "msgspec", "orjson", "subprocess", "logging"}


def modules_after(statement: str) -> set[str]:
    code = f"import sys; sys.path.append({str(ROOT)!r}); {statement}; print(*sys.modules)"
    # -S: a site-packages hook may load anything.
    out = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, check=True, text=True).stdout
    return set(out.split())


def test_import_iii_loads_next_to_nothing():
    loaded = modules_after("import iii")
    assert not loaded & (TOO_HEAVY | {"threading", "iii.worker.worker"})


def test_the_sdk_loads_no_heavy_module():
    loaded = modules_after("from iii import register_worker, InitOptions, TriggerAction, InvocationError")
    assert "iii.worker.worker" in loaded
    assert not loaded & TOO_HEAVY


def test_every_public_name_exists():
    assert all(getattr(iii, name) is not None for name in iii.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = iii.no_such_name


@pytest.mark.parametrize("module", [iii.errors, iii.testing])
def test_a_public_module_names_what_is_public_and_only_that(module):
    public = {name: getattr(module, name) for name in module.__all__}
    assert all(value.__module__.startswith(module.__name__) for value in public.values())
    own = {name for name, value in vars(module).items() if getattr(value, "__module__", "").startswith(module.__name__)}
    assert {name for name in own if not name.startswith("_")} <= set(public)


def test_every_public_name_of_a_worker_is_documented():
    docs = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    public = [name for name in dir(Worker) if not name.startswith("_")]
    assert [name for name in public if not re.search(rf"\b{name}\b", docs)] == []
