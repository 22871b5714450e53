"""The browser example in a real browser: two pages that are workers, behind a listener with rules. Needs Chromium."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.browser import open_page
from tests.support.live_project import ROOT, free_ports, project

EXAMPLE = ROOT / "examples" / "browser"
STATE = "document.getElementById('state').textContent"
NOTES = "[...document.querySelectorAll('#notes li')].map((note) => note.textContent).join()"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_pages_call_the_project_and_the_project_calls_the_pages(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    ports = free_ports("3111", "49135")  # instead of the example's own, which may be taken
    for file in (tmp_path / "iii.toml", tmp_path / "public" / "board.js"):
        for named, free in ports.items():
            file.write_text(file.read_text().replace(named, str(free)))
    toml = '[engine]\nlisten = "127.0.0.1:0"\n' + (tmp_path / "iii.toml").read_text()
    with project(tmp_path, toml, {}) as running:
        url = f"http://127.0.0.1:{ports['3111']}/"
        with open_page(url, tmp_path / "first") as page, open_page(url, tmp_path / "second") as other:
            for one in (page, other):
                one.wait(STATE, "connected; gate::auth is FORBIDDEN")
            running.call("board::post", {"text": "from the project"})
            page.value("document.forms[0].text.value = 'from a page'; document.forms[0].requestSubmit()")
            for one in (page, other):
                one.wait(NOTES, "from the project,from a page")
            names = [row["name"] for row in running.call("engine::workers::list")["workers"]]
            assert sum(name.startswith("board:") for name in names) == 2
