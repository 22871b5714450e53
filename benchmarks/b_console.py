"""The console: what an open page costs the calls of a project. `python -m benchmarks.b_console [--quick]`.

A worker calls another one as fast as it can, in the same rounds with no page open and with one: overview, traces and
logs, which hear of what is called. The browser (Debian's chromium) runs on the same processors.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.b_http import start
from benchmarks.harness import Comparison, Options, Row, interleave
from benchmarks.report import table
from cli.client.connection import connect
from iii.one_time_keys import make_key

CHROMIUM = "/usr/bin/chromium"
TARGET = 0.97
CALLS, WINDOW = 20_000, 32
SETTLE_MS = 1500  # what the loading of a page costs is not what an open one costs
PATHS = ("/", "/traces", "/logs")
TOML = """
[engine]
listen = "127.0.0.1:0"
[workers.callee]
run = "callee.py"
[workers.caller]
run = "caller.py"
[workers.observability.config]
prometheus = false
"""
CALLEE = """
from iii import register_worker
worker = register_worker()
worker.register_function("bench::add", lambda data: {"sum": data["a"] + data["b"]})
"""
CALLER = """
import asyncio, time
from iii import register_worker
worker = register_worker()
async def spin(data):
    left = data["calls"]
    async def one():
        nonlocal left
        while left > 0:
            left -= 1
            await worker.trigger_async("bench::add", {"a": 2, "b": 3})
    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(data["window"])))
    return data["calls"] / (time.perf_counter() - begun)
worker.register_function("bench::spin", spin)
"""


def run(options: Options) -> list[Row]:
    """Return one comparison for each page."""
    with tempfile.TemporaryDirectory() as made, opened(Path(made)) as (page, address, socket):

        def rate(path: str | None) -> float:
            page.goto("about:blank" if path is None else address + path)
            if path is not None:
                page.wait_for_selector("h1")
            page.wait_for_timeout(SETTLE_MS)
            with connect(socket) as connection:
                found: float = connection.call("bench::spin", {"calls": CALLS, "window": WINDOW}, 300_000)
                return found

        setups: dict[str, Callable[[], float]] = {"closed": lambda: rate(None)}
        setups |= {path: lambda path=path: rate(path) for path in PATHS}  # type: ignore[misc]
        figures = interleave(setups, options.rounds)
    return [
        Comparison(f"C{number}", f"calls with {path} open, against no page", "calls/s", TARGET, False).row(
            figures[path], figures["closed"]
        )
        for number, path in enumerate(PATHS, 1)
    ]


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Page, str, str]]:
    """Run the project and a browser that is let in; yields the page, the console's address and the engine's socket."""
    for name, text in (("iii.toml", TOML), ("callee.py", CALLEE), ("caller.py", CALLER)):
        (folder / name).write_text(text)
    process = start([sys.executable, "-m", "cli.main", "dev"], folder)
    try:
        assert process.stdout is not None
        next(line for line in process.stdout if "ready in" in line)
        engine = running(folder)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(f"{engine['console']}/#key={make_key(folder / '.iii')}")
            page.wait_for_selector("h1")
            yield page, engine["console"], engine["socket"]
            browser.close()
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()


def running(folder: Path) -> dict[str, str]:
    """Return what the engine has announced, once it says that it is ready."""
    while True:
        engine: dict[str, str] = json.loads((folder / ".iii" / "run" / "engine.json").read_text())
        if engine["ready"]:
            return engine
        time.sleep(0.01)


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.b_console", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    print(table(run(Options(quick=parser.parse_args().quick))))


if __name__ == "__main__":
    main()
