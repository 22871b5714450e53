"""The site in a browser: every page is reached by links and opens without an error, can be read, and is found."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.support.chromium import chromium
from tests.support.live_project import ROOT

pytestmark = pytest.mark.timeout(300)
# What a reader needs; furo's own landmarks are its business.
RULES = {"runOnly": ["color-contrast", "document-title", "html-has-lang", "image-alt", "link-name"]}


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """The address of the site, and its pages."""
    folder = tmp_path_factory.mktemp("site")
    variables = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([ROOT / "scripts/docs", folder], env=variables, capture_output=True, check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    pages = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))
    yield f"http://127.0.0.1:{server.server_address[1]}", [page for page in pages if not page.startswith("_")]
    server.shutdown()
    server.server_close()
    serving.join()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page()


def test_every_page_is_reached_by_links_and_opens_without_an_error(site: tuple[str, list[str]], page: Page) -> None:
    address, pages = site
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(f"{page.url}: {error}"))
    page.on("request", lambda request: request.url.startswith(address) or problems.append(f"asks {request.url}"))
    seen: set[str] = set()
    waiting = {"index.html"}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        answer = page.goto(f"{address}/{name}")
        assert answer is not None
        assert (answer.status, bool(page.title())) == (200, True), name
        links: list[str] = page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)")
        inside = {link.removeprefix(f"{address}/").partition("#")[0] for link in links if link.startswith(address)}
        waiting |= {link for link in inside if link.endswith(".html")} - seen
    assert len(seen) > 50
    assert set(pages) - seen <= {"search.html"}  # the form leads there
    assert problems == []


# Colors are those of the theme, so a page of each kind shows them all: text, tables, code, pictures.
@pytest.mark.parametrize("name", ["index", "tutorials/shortener", "reference/limits", "how-to/deploy"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_can_be_read_in_the_light_and_in_the_dark(
    site: tuple[str, list[str]], page: Page, name: str, scheme: str
) -> None:
    page.goto(f"{site[0]}/{name}.html")
    page.evaluate("scheme => { document.body.dataset.theme = scheme }", scheme)
    found = Axe().run(page, options=RULES).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:120]) for each in found] == []


def test_the_search_finds_a_page_by_a_word_of_it(site: tuple[str, list[str]], page: Page) -> None:
    page.goto(f"{site[0]}/index.html")
    page.get_by_placeholder("Search").first.fill("watchdog")
    page.keyboard.press("Enter")
    expect(page.locator("#search-results li a").first).to_be_visible(timeout=30_000)
    assert "Deploy" in page.locator("#search-results").inner_text()
