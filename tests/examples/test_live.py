"""The live example in a real browser: two windows, one counter, and who is here. Needs Chromium."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.browser import open_page
from tests.support.live_project import ROOT, project

EXAMPLE = ROOT / "examples" / "live"
COUNT = "document.getElementById('count').textContent"
PEOPLE = "document.querySelectorAll('#people li').length"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_an_open_page_shows_what_others_do(tmp_path: Path) -> None:
    for file in EXAMPLE.glob("*.*"):
        if file.name != "iii.toml":
            shutil.copy(file, tmp_path)
    with project(tmp_path, (EXAMPLE / "iii.toml").read_text(), {}) as running:
        # The default port, or the next one that is free.
        port = running.wait("stream: ws://")[-1].rpartition(":")[2]
        page_file = tmp_path / "page.html"
        page_file.write_text(page_file.read_text().replace(":3112/", f":{port}/"))
        url = running.wait("http://127.0.0.1:")[-1].strip().rpartition(" ")[2] + "/"
        with open_page(url, tmp_path / "first") as page:
            page.wait(PEOPLE, 1)
            assert page.value(COUNT) == "0"
            running.call("counter::add", {})
            page.wait(COUNT, "1")
            with open_page(url, tmp_path / "second") as other:
                other.wait(COUNT, "1")
                page.wait(PEOPLE, 2)
                other.value("document.getElementById('add').click()")
                page.wait(COUNT, "2")
            page.wait(PEOPLE, 1)
