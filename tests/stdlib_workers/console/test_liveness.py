"""Every page follows what the command line changes: from the end of the command to what is seen, by the page's clock.

The bound is for a loaded machine; the times are printed (`pytest -s`), and are to be under 500 ms on one that is not.
"""

from __future__ import annotations

import time

import pytest

from tests.stdlib_workers.console.conftest import Console, iii

pytestmark = pytest.mark.timeout(120)

# Milliseconds from the end of the command.
BOUND = 10_000
# Resolves with the time at which what `read` gives is another than it was.
FOLLOW = """(read) => {
  const look = new Function(`return ${read}`);
  const before = look();
  window.followed = new Promise((resolve) => {
    const observer = new MutationObserver(() => {
      if (look() === before) return;
      observer.disconnect();
      resolve(Date.now());
    });
    observer.observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
  });
}"""


def holds(text: str) -> str:
    """Return the expression whether the page shows this text."""
    return f"document.querySelector('main').textContent.includes('{text}')"


BIND = ["trigger", "engine::register_trigger", "trigger_type=subscribe", "function_id=shop::heard"]
CHANGES = {
    "overview": ("/", holds("closed for overview"), ["trigger", "shop::fail", "why=closed for overview"]),
    "map": (
        "/map",
        holds("mapped"),
        [*BIND, 'config={"topic": "mapped"}'],
    ),
    "workers": (
        "/workers?filter=cron",
        "document.querySelector('tbody').rows[0].cells[2].textContent",
        ["worker", "restart", "cron"],
    ),
    "worker": ("/workers?name=pubsub", "document.querySelector('dl').textContent", ["worker", "restart", "pubsub"]),
    "functions": ("/functions", holds("shop::offered"), ["trigger", "shop::offer", "id=shop::offered"]),
    "function": (
        "/functions?id=math::add",
        "document.querySelectorAll('.detail table:last-of-type tbody tr').length",
        ["trigger", "math::add", "a=1"],
    ),
    "traces": (
        "/traces?name=math::add",
        "document.querySelector('.head-line .quiet').textContent",
        ["trigger", "math::add", "a=2"],
    ),
    "logs": ("/logs", holds("a=4711"), ["trigger", "math::add", "a=4711"]),
    "queues": ("/queues", holds("paused"), ["queue", "pause", "mails"]),
    "queue": ("/queues?queue=mails", holds("Resume"), ["queue", "resume", "mails"]),
    "flows": (
        "/flows",
        holds("followed"),
        ["trigger", "flow::start", "function_id=shop::deliver", 'payload={"order": "followed"}'],
    ),
    "flow": ("/flows?run=waiting", holds("completed"), ["flow", "signal", "waiting", "approved", "1"]),
    "triggers": (
        "/triggers",
        holds("bound-anew"),
        [*BIND, 'config={"topic": "bound-anew"}'],
    ),
    "scopes": ("/state", holds("colors"), ["state", "set", "colors", "sky", '"blue"']),
    "state": ("/state?scope=users&key=ada", holds("4712"), ["state", "set", "users", "ada", '{"age": 4712}']),
    "streams": (
        "/streams",
        holds("news"),
        ["trigger", "stream::set", "stream_name=news", "group_id=all", "item_id=1", "data=1"],
    ),
    "stream": (
        "/streams?stream=chat&group=room",
        holds("hello there"),
        ["trigger", "stream::set", "stream_name=chat", "group_id=room", "item_id=2", "data=hello there"],
    ),
    "metrics": (
        "/metrics?filter=shop::fail",
        "document.querySelector('main').textContent",
        ["trigger", "shop::fail", "why=closed for metrics"],
    ),
    "config": ("/config", holds("workers.configuration"), ["add", "configuration"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_page_follows_the_command_line(console: Console, name: str) -> None:
    path, read, words = CHANGES[name]
    page = console.open(path)
    page.locator(".loading").wait_for(state="detached")
    page.locator(".link.live").wait_for()
    page.evaluate(FOLLOW, read)
    said = iii(console.project.folder, *words)
    ended = time.time() * 1000
    assert said.returncode == 0 or "shop_closed" in said.stderr, said.stderr
    shown = page.evaluate(f"Promise.race([window.followed, new Promise((r) => setTimeout(r, {BOUND}, null))])")
    assert shown is not None, f"{path} does not show it"
    print(f"\n{name}: {shown - ended:.0f} ms")
