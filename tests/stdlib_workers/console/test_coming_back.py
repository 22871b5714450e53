"""Open pages follow a reload of the console, of workers and a restart of the engine, under load and without a click."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from threading import Event, Thread

import pytest
from playwright.sync_api import Browser, Page, expect

from iii.errors import IIIError
from tests.stdlib_workers.console.conftest import SHOP, TOML, Console
from tests.support.live_project import Project, held_port, project

pytestmark = pytest.mark.timeout(120)

# Milliseconds; the bound is for a loaded machine.
LIVE = 30_000


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Console]:
    """A console with a port of its own: pages cannot find one that has moved."""
    folder = tmp_path_factory.mktemp("shop")
    with held_port() as port:
        toml = f"{TOML}\n[workers.console.config]\nport = {port}\n"
        with project(folder, toml, {"shop": SHOP}, "dev") as running:
            yield Console(running, browser)


@pytest.fixture
def load(console: Console) -> Iterator[None]:
    """Calls without an end, whatever becomes of them."""
    over = Event()

    def work() -> None:
        while not over.is_set():
            with contextlib.suppress(IIIError, OSError, ValueError), console.project.connect() as connection:
                while not over.is_set():
                    connection.call("math::add", {"a": 1})

    thread = Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join(LIVE / 1000)


def generation_of(running: Project, worker: str) -> int:
    rows = running.call("engine::workers::list", {"search": worker})["workers"]
    generation: int = rows[0]["generation"]
    return generation


def opened(console: Console, path: str) -> Page:
    """Return one more page of the same browser."""
    page = console.context.new_page()
    page.goto(console.address + path)
    expect(page.locator(".link.live")).to_be_visible()
    return page


def test_what_is_typed_stays_when_the_engine_and_the_console_restart(console: Console) -> None:
    page = console.open("/functions?id=shop::order")
    page.locator("#field-item").fill("earl grey")
    console.project.stop()
    expect(page.locator(".link.lost")).to_be_visible(timeout=LIVE)
    expect(page.locator("#field-item")).to_have_value("earl grey")
    console.project.start("dev")
    expect(page.locator(".link.live")).to_be_visible(timeout=LIVE)
    expect(page.locator("#field-item")).to_have_value("earl grey")
    page.get_by_label("Call this function").get_by_role("button", name="Call", exact=True).click()
    expect(page.get_by_label("Result")).to_contain_text('"item": "earl grey"')
    generation = generation_of(console.project, "console")
    console.project.call("engine::workers::restart", {"name": "console"})
    expect(page.locator(".link.live")).to_be_visible(timeout=LIVE)
    assert generation_of(console.project, "console") == generation + 1
    page.get_by_label("Call this function").get_by_role("button", name="Call", exact=True).click()
    expect(page.get_by_label("Result").get_by_text("ok", exact=True)).to_be_visible()


def test_many_pages_of_one_browser_are_all_live(console: Console) -> None:
    # A browser opens six connections to one server.
    pages = [opened(console, "/state?scope=pages&key=one") for _ in range(8)]
    console.project.call("state::set", {"scope": "pages", "key": "one", "value": "for all"})
    for page in pages:
        expect(page.get_by_label("Value", exact=True)).to_contain_text("for all", timeout=LIVE)
    for page in pages:
        page.close()


@pytest.mark.usefixtures("load")
def test_pages_follow_a_reload_and_a_restart_under_load(console: Console) -> None:
    running = console.project
    for key in ("tea", "cups"):
        running.call("state::set", {"scope": "users", "key": key, "value": {}})
    value, workers = opened(console, "/state?scope=users&key=cups"), opened(console, "/workers?filter=shop")
    functions, draft = opened(console, "/functions"), opened(console, "/state?scope=users&key=tea")
    draft.get_by_role("button", name="Edit").click()
    draft.get_by_role("textbox", name="Value").fill('{"half": "typed')

    script = running.folder / "shop.py"
    script.write_text(script.read_text() + '\nworker.register_function("shop::reloaded", lambda data: data)\n')
    expect(functions.get_by_role("link", name="shop::reloaded")).to_be_visible(timeout=LIVE)
    row = workers.locator("tbody tr").first
    expect(row.locator("td").nth(2)).to_have_text(str(generation_of(running, "shop")), timeout=LIVE)

    running.call("engine::workers::restart", {"name": "console"})
    running.call("state::set", {"scope": "users", "key": "cups", "value": "after the console"})
    expect(value.get_by_label("Value", exact=True)).to_contain_text("after the console", timeout=LIVE)

    pid = row.locator("td").nth(3).inner_text()
    running.stop()
    running.start("dev")
    expect(row.locator("td").nth(3)).not_to_have_text(pid, timeout=LIVE)
    running.call("state::set", {"scope": "users", "key": "cups", "value": "after the engine"})
    expect(value.get_by_label("Value", exact=True)).to_contain_text("after the engine", timeout=LIVE)
    expect(functions.get_by_role("link", name="shop::reloaded")).to_be_visible()
    expect(draft.get_by_role("textbox", name="Value")).to_have_value('{"half": "typed')
    for page in (value, workers, functions, draft):
        expect(page.locator(".link.live")).to_be_visible(timeout=LIVE)
        page.close()
