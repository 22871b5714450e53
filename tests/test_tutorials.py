"""Who follows a tutorial literally ends at its last line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support import official
from tests.support.live_project import ROOT, free_ports
from tests.support.tutorial import following, matches


def test_dots_stand_for_text_in_a_line_or_for_lines() -> None:
    assert matches("a 1.5 b\n", "a ... b\n")
    assert matches("first\nx\ny\nlast\n", "first\n...\nlast\n")
    assert not matches("a\nb\n", "a...\n")


@pytest.mark.timeout(300)
def test_the_link_shortener(tmp_path: Path) -> None:
    port = str(free_ports("http")["http"])
    with following(ROOT / "docs/tutorials/shortener.md", tmp_path, {"3111": port}) as follower:
        assert follower.steps > 15
        assert (follower.folder / "public/index.html").is_file()


@pytest.mark.timeout(300)
def test_orders(tmp_path: Path) -> None:
    port = str(free_ports("http")["http"])
    with following(ROOT / "docs/tutorials/orders.md", tmp_path, {"3111": port}) as follower:
        assert follower.steps > 20


@pytest.mark.skipif(not official.HAS_NODE, reason="node is not installed")
@pytest.mark.timeout(300)
def test_a_streaming_agent(tmp_path: Path) -> None:
    packages = json.loads((ROOT / "cli/project/templates/typescript/package.json").read_text(encoding="utf-8"))
    # What `npm install` gets, kept between runs.
    shutil.copytree(official.typescript_with(packages), tmp_path / "chat/node_modules", symlinks=True)
    port = str(free_ports("http")["http"])
    with following(ROOT / "docs/tutorials/agent.md", tmp_path, {"3111": port}) as follower:
        assert follower.steps > 15
