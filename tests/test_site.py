"""The site that `scripts/docs` makes: strictly, and without a request to anybody else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from tests.support.live_project import ROOT

# The site is made in fifteen seconds, on a machine that has nothing else to do.
pytestmark = pytest.mark.timeout(180)

# What a page loads by itself, as against what a reader may follow.
LOADED = re.compile(r"""<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=["']([^"']+)""")
LINK = re.compile(r"""<a\b[^>]*?\bhref=["']([^"']+)""")
ANCHOR = re.compile(r"""\bid=["']([^"']+)""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [ROOT / "scripts/docs", folder]
    done = subprocess.run(
        command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_the_documentation_is_part_of_it(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in ROOT.glob("docs/**/*.md")}
    assert {str(page) for page in pages if not (site / page).is_file()} == set()
    start = (site / "index.html").read_text()
    assert {str(page) for page in pages if f'href="{page}"' not in start and page.name != "index.html"} == set()


def test_no_page_asks_anybody_else_for_anything(site: Path) -> None:
    loaded = {address for page in site.rglob("*.html") for address in LOADED.findall(page.read_text())}
    assert {address for address in loaded if "//" in address} == set()
    styles = "".join(style.read_text() for style in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*[\"']?https?:[^\"')]*", styles) == []


def test_every_link_leads_somewhere(site: Path) -> None:
    anchors = {page: set(ANCHOR.findall(page.read_text())) for page in site.rglob("*.html")}
    broken = []
    for page in anchors:
        for link in LINK.findall(page.read_text()):
            address, fragment = urldefrag(unquote(link))
            if re.match(r"[a-z]+:", address):
                continue
            target = (page.parent / address).resolve() if address else page
            if not target.is_file() or (fragment and target in anchors and fragment not in anchors[target]):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert broken == []


def test_every_page_has_a_title_of_its_own(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "search.html"]
    titles = [page.read_text().partition("<title>")[2].partition("</title>")[0].strip() for page in pages]
    assert "" not in titles
    assert len(set(titles)) == len(titles)
