"""A headless Chromium and the little of its debugging protocol that a test needs: open a page, ask it for a value."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

BOUND = 30.0
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
]


class Page:
    """One open page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression gives in the page; of a promise, what it is kept with."""
        answer = self._command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return answer.get("result", {}).get("value")

    def choose_file(self, selector: str, file: Path) -> None:
        """Put a file into the input that `selector` finds, as a person would."""
        found = self._command("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self._command("DOM.setFileInputFiles", files=[str(file)], objectId=found["result"]["objectId"])

    def wait(self, expression: str, wanted: Any) -> None:
        """Return once the expression gives `wanted`."""
        deadline = time.monotonic() + BOUND
        while (found := self.value(expression)) != wanted:
            assert time.monotonic() < deadline, f"{expression} is {found!r}, not {wanted!r}"

    def _command(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(BOUND))
            if message.get("id") == number:
                # An error when the page went elsewhere meanwhile: then there is no value.
                result: dict[str, Any] = message.get("result", {})
                return result


@contextmanager
def open_page(url: str, folder: Path, *flags: str) -> Iterator[Page]:
    """Open `url` in a browser of its own whose files lie in `folder`; `flags` are added to its command line."""
    program = next(filter(None, map(shutil.which, NAMES)))
    browser = subprocess.Popen(
        [program, *FLAGS, *flags, f"--user-data-dir={folder}", url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with connect(_address(browser, url), max_size=None) as socket:
            yield Page(socket)
    finally:
        browser.kill()
        browser.communicate()


def _address(browser: subprocess.Popen[str], url: str) -> str:
    assert browser.stderr is not None
    port = next(found[1] for line in browser.stderr if (found := re.search(r"ws://127\.0\.0\.1:(\d+)/", line)))
    deadline = time.monotonic() + BOUND
    while time.monotonic() < deadline:
        with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=BOUND) as answer:
            pages = json.load(answer)
        for page in pages:
            if page["type"] == "page" and page["url"].startswith(url):
                address: str = page["webSocketDebuggerUrl"]
                return address
    raise TimeoutError(f"the browser did not open {url}")
