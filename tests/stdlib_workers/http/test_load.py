"""Load while code changes: no request fails when the handler's worker or the http worker itself is replaced."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Event, Thread
from time import monotonic

import pytest

from tests.support.live_project import BOUND
from tests.support.web_project import Web, web

WORKER = """
def answer(request):
    return {"body": {"n": request["body"]["n"]}}

worker.register_function("web::answer", answer)
worker.register_trigger({"type": "http", "function_id": "web::answer",
                         "config": {"api_path": "/answer", "http_method": "POST"}})
"""
CLIENTS = 4


class Load:
    """Clients that ask for as long as it lasts, each on a connection that it keeps while the server does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ended = Event()
        self._answered = Condition()
        self.outcomes: Counter[str] = Counter()
        self._threads = [Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=BOUND)
        number = 0
        while not self._ended.is_set():
            number += 1
            outcome = self._outcome(connection, number)
            with self._answered:
                self.outcomes[outcome] += 1
                self._answered.notify_all()
        connection.close()

    def _outcome(self, connection: http.client.HTTPConnection, number: int) -> str:
        try:
            body = json.dumps({"n": number})
            connection.request("POST", "/answer", body, {"content-type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return repr(error)
        is_right = response.status == 200 and json.loads(answer) == {"n": number}
        return "right" if is_right else f"{response.status} {answer!r}"

    def go_on_until(self, moment: float) -> None:
        """Return at `moment`, and not before another request has been answered."""
        seen = self.outcomes.total()
        with self._answered:
            assert self._answered.wait_for(lambda: self.outcomes.total() > seen and monotonic() >= moment, BOUND)

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(BOUND)


@contextmanager
def load(port: int) -> Iterator[Load]:
    made = Load(port)
    try:
        yield made
    finally:
        made.stop()


def restart_under_load(running: Web, worker: str, count: int) -> Counter[str]:
    """Replace the worker's process `count` times under load; return what became of the requests."""
    with load(running.port) as clients, running.project.connect() as connection:
        for done in range(1, count + 1):
            connection.call("engine::workers::restart", {"name": worker})
            running.project.wait("~ ready again", count=done)
    return clients.outcomes


@pytest.mark.parametrize(("worker", "count"), [("web", 5), ("http", 5)])
def test_no_request_fails_while_a_worker_is_replaced(tmp_path: Path, worker: str, count: int) -> None:
    with web(tmp_path, WORKER, "access_log = false") as running:
        outcomes = restart_under_load(running, worker, count)
    assert set(outcomes) == {"right"}


def save_under_load(running: Web, count: int, seconds: float) -> Counter[str]:
    """Save the handler `count` times, spread over `seconds` of load; return what became of the requests."""
    source = running.project.folder / "web.py"
    code, begin = source.read_text(), monotonic()
    with load(running.port) as clients:
        for number in range(1, count + 1):
            source.write_text(f"{code}\n# saved for the {number}. time\n")
            running.project.wait("changed: reloaded", count=number)
            clients.go_on_until(begin + seconds * number / count)
    return clients.outcomes


@pytest.mark.parametrize(
    ("count", "seconds"), [(3, 0), pytest.param(100, 60, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_no_request_fails_while_the_handler_is_saved(tmp_path: Path, count: int, seconds: float) -> None:
    with web(tmp_path, WORKER, "access_log = false", command="dev") as running:
        began = monotonic()
        outcomes = save_under_load(running, count, seconds)
        elapsed = monotonic() - began
    print(f"{count} reloads in {elapsed:.1f} s, requests: {dict(outcomes)}")
    assert set(outcomes) == {"right"}
    assert elapsed >= seconds


@pytest.mark.parametrize("count", [2, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_no_request_fails_while_handler_and_http_worker_are_replaced_in_turn(tmp_path: Path, count: int) -> None:
    with web(tmp_path, WORKER, "access_log = false", command="dev") as running:
        source = running.project.folder / "web.py"
        code, began = source.read_text(), monotonic()
        with load(running.port) as clients, running.project.connect() as connection:
            for number in range(1, count + 1):
                source.write_text(f"{code}\n# saved for the {number}. time\n")
                running.project.wait("changed: reloaded", count=number)
                connection.call("engine::workers::restart", {"name": "http"})
            clients.go_on_until(monotonic())
        elapsed = monotonic() - began
    print(f"{2 * count} reloads in {elapsed:.1f} s, requests: {dict(clients.outcomes)}")
    assert set(clients.outcomes) == {"right"}
