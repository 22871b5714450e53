"""What docs/gateway.md shows is a project file that loads, and its tables name what the code knows."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from iii.engine.config.project import load_project
from iii.engine.gateway.server import ConnectionLimits
from iii.engine.security.rbac import AuthResult
from stdlib_workers.bridge.options import Options, options_from

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "gateway.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_its_project_files_load(tmp_path: Path, block: str) -> None:
    file = tmp_path / "iii.toml"
    file.write_text(block)
    project = load_project(file, environ={})
    for spec in project.workers.values():
        assert options_from(spec.config).forward


def test_it_explains_every_key_of_an_auth_function_and_of_the_bridge() -> None:
    assert len(BLOCKS) == 2
    keys = [*AuthResult.__struct_fields__, *(field.name for field in fields(Options))]
    assert [key for key in keys if f"| `{key}` |" not in TEXT] == []


def test_its_limits_are_those_of_the_code() -> None:
    limits = ConnectionLimits()
    assert f"| connections of a listener | {limits.connections} |" in TEXT
    assert f"pinged after {limits.ping_interval:.0f} s, gone after {limits.silence_timeout:.0f} s" in TEXT
    assert f"| the handshake | {limits.handshake_timeout:.0f} s |" in TEXT
    assert f"{limits.unsent_bytes // 1024**2} MiB | cut" in TEXT
