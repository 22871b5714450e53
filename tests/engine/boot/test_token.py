"""The token file: private, fresh, and never written through something that somebody else has placed there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from iii.engine.boot.run_dir import make_token, read_token, remove_token
from iii.errors import ProjectError


def test_a_token_is_private_and_new_each_time(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        first, second = make_token(tmp_path), make_token(tmp_path)
    finally:
        os.umask(old)
    assert first != second
    assert len(second) >= 43  # 256 bits in base64
    assert read_token(tmp_path) == second
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_without_an_engine_there_is_none(tmp_path: Path) -> None:
    make_token(tmp_path)
    remove_token(tmp_path)
    remove_token(tmp_path)
    assert read_token(tmp_path) is None


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_s11_something_else_in_its_place_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    target, place = tmp_path / "target", tmp_path / "token"
    target.write_text("precious")
    {"symlink": lambda: place.symlink_to(target), "fifo": lambda: os.mkfifo(place), "directory": place.mkdir}[kind]()
    with pytest.raises(ProjectError, match="not a file of yours"):
        make_token(tmp_path)
    assert target.read_text() == "precious"
