"""What the page and its worker may cost: bytes of script, and in a slow test a minute of twenty traces a second.

The times are printed; what decides is that the page keeps up, and what is bounded by design. `benchmarks/b_console.py`
measures what an open page costs the engine.
"""

from __future__ import annotations

import time

import psutil
import pytest
from playwright.sync_api import expect

from stdlib_workers.console.application import STATIC
from tests.stdlib_workers.console.conftest import Console

# Bytes of script that a page loads, vendored libraries among them.
MOST_SCRIPT = 250 * 1024
SECONDS, RATE = 60, 20
WATCH = """() => {
  window.tasks = [];
  new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((entry) => Math.round(entry.duration))))
    .observe({ type: "longtask" });
}"""


@pytest.mark.parametrize("path", ["/", "/map", "/metrics"])
def test_no_page_loads_much_script(console: Console, path: str) -> None:
    page = console.open(path)
    expect(page.locator(".loading")).to_have_count(0)
    page.wait_for_load_state("load")
    # By the files: what the browser has kept from the page before counts as well.
    paths = page.evaluate("performance.getEntriesByType('resource').map((file) => new URL(file.name).pathname)")
    scripts = {path for path in paths if path.endswith("js")}
    assert "/lib/core.js" in scripts
    assert sum((STATIC / path[1:]).stat().st_size for path in scripts) < MOST_SCRIPT


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_minute_of_twenty_traces_a_second_is_shown_and_leaves_nothing_behind(console: Console) -> None:
    page = console.open("/traces")
    expect(page.locator(".link.live")).to_be_visible()
    worker = psutil.Process(console.project.pid_of("console"))
    page.evaluate(WATCH)
    begun = time.monotonic()
    memory = []
    with console.project.connect() as connection:
        for number in range(SECONDS * RATE):
            connection.call("math::add", {"a": number})
            page.wait_for_timeout(max(0.0, (begun + number / RATE - time.monotonic()) * 1000))
            if number % (RATE * 10) == 0:
                memory.append(round(worker.memory_info().rss / 2**20, 1))
        connection.call("shop::count", {"upto": 0})
    rows = page.get_by_label("Traces").get_by_role("listitem")
    expect(rows.first).to_contain_text("call shop::count")
    print(f"\ntasks over 50 ms: {page.evaluate('window.tasks')}; MiB of the worker every 10 s: {memory}")
    page.reload()
    expect(rows.first).to_be_visible()
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    print(f"first paint: {page.evaluate(paint):.0f} ms")
