"""One project with every kind of thing that the console shows, under a real `iii dev`, and one browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.support.chromium import chromium
from tests.support.live_project import BOUND, ROOT, Project, project

TOML = """
[engine]
listen = "127.0.0.1:0"
[workers.shop]
run = "shop.py"
env = { SHOP_KEY = "a-secret-of-the-shop", MODE = "${SHOP_MODE:open}" }
[workers.state]
[workers.queue.config.queue_configs.mails]
max_retries = 1
backoff_ms = 10
[workers.flow]
[workers.cron]
[workers.pubsub]
[workers.stream.config]
port = 0
[workers.http.config]
port = 0
[workers.observability.config]
prometheus = false
alerts = [{ name = "busy", metric = "iii.invocations.total", threshold = 1000 }]
"""
SHOP = '''
import time
from collections.abc import Iterator
from typing import Literal
from iii import Logger
log = Logger()

@worker.function("math::add")
def add(a: float, b: float = 2) -> dict:
    """Add two numbers."""
    log.info("adding", {"a": a})
    return {"c": a + b}

@worker.function("shop::order")
def order(item: str, size: Literal["s", "m"] = "m", gift: bool = False) -> dict:
    """Take an order. <img src=x onerror="document.title='broken'">"""
    worker.trigger("math::add", {"a": 1})
    mails = TriggerAction.Enqueue(queue="mails")
    worker.trigger({"function_id": "shop::mail", "payload": {"to": item}, "action": mails})
    return {"item": item}

@worker.function("shop::mail")
def mail(to: str) -> None:
    """Send a receipt."""
    if to.startswith("x"):
        raise InvocationError("mail_away", "the mail server is away")

@worker.function("shop::count")
def count(upto: int) -> Iterator[int]:
    """Count."""
    for number in range(upto):
        current_invocation().report_progress(number, total=upto, message="counting")
        yield number

@worker.function("shop::many")
def many(calls: int) -> None:
    """Make many calls."""
    for number in range(calls):
        worker.trigger("math::add", {"a": number})

@worker.function("shop::long")
def long(size: int) -> str:
    """Return a long text."""
    return "x" * size

@worker.function("shop::fail")
def fail(why: str) -> None:
    """Fail."""
    raise InvocationError("shop_closed", why)

@worker.function("shop::offer")
def offer(id: str) -> None:
    """Offer one more function."""
    worker.register_function(id, lambda data: data)

@worker.function("shop::tick")
def tick(event: dict) -> None:
    """Look after the shop."""

@worker.flow("shop::deliver", id_field="order")
def deliver(flow, order: str) -> dict:
    """Deliver an order."""
    flow.call("math::add", {"a": 1})
    parts = flow.map("math::add", [{"a": 1}, {"a": 2}])
    approved = flow.wait("approved", timeout="1h")
    if approved == "never":
        raise InvocationError("not_approved", "nobody wants it")
    return {"order": order, "by": approved, "parts": len(parts)}

worker.register_function("shop::bare", lambda data: data)
yearly = {"expression": "0 0 1 1 *", "name": "yearly"}
worker.register_trigger({"type": "cron", "function_id": "shop::tick", "config": yearly})
worker.register_function("shop::heard", lambda data: say("heard", data["number"]))
worker.register_trigger({"type": "subscribe", "function_id": "shop::heard", "config": {"topic": "numbers"}})
hook = {"api_path": "/orders", "http_method": "POST"}
worker.register_trigger({"type": "http", "function_id": "shop::order", "config": hook})
'''


class Console:
    """The console of a running project, and a page that is let in."""

    def __init__(self, running: Project, browser: Browser) -> None:
        self.project = running
        self.browser = browser
        self.address = self.link().partition("/#")[0]
        self.context = self.new_context()
        self.page = self.let_in(self.context)

    def link(self) -> str:
        """Return a new link, as `iii console` prints it where there is no browser."""
        return iii(self.project.folder, "console", "--link").stdout.strip()

    def new_context(self) -> BrowserContext:
        """Return a browser's profile, whose pages fail the test by anything they complain about."""
        context = self.browser.new_context(viewport={"width": 1280, "height": 800})
        context.set_default_timeout(BOUND * 1000)
        context.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error(`CSP ${event.violatedDirective}`))"
        )
        return context

    def let_in(self, context: BrowserContext) -> Page:
        """Return a page of this profile after its link was used."""
        page = context.new_page()
        page.goto(self.link())
        page.wait_for_selector("h1:text-is('Overview')")
        return page

    def open(self, path: str) -> Page:
        """Return the page, at this address."""
        self.page.goto(self.address + path)
        self.page.wait_for_selector("h1")
        return self.page


def iii(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in a project."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("III_")}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        cwd=folder,
        env=plain | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with project(tmp_path_factory.mktemp("shop"), TOML, {"shop": SHOP}, "dev") as running:
        yield running


@pytest.fixture(scope="module")
def console(shop: Project, browser: Browser) -> Iterator[Console]:
    # What stands in the log and the traces of a real project.
    shop.call("shop::order", {"item": "tea"})
    shop.call("shop::order", {"item": "xylophone"})
    shop.call("state::set", {"scope": "users", "key": "ada", "value": {"age": 36}})
    shop.call("stream::set", {"stream_name": "chat", "group_id": "room", "item_id": "1", "data": {"text": "hi"}})
    shop.call("flow::start", {"function_id": "shop::deliver", "payload": {"order": "waiting"}})
    made = Console(shop, browser)
    complaints: list[str] = []
    made.context.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    made.context.on("weberror", lambda error: complaints.append(str(error.error)))
    yield made
    # While the engine is away, the browser says so.
    own = [text for text in complaints if "ERR_CONNECTION" not in text and "ERR_INCOMPLETE" not in text]
    assert own == [], json.dumps(own)
