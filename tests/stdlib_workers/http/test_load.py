"""Load while code changes: no request fails when the handler's worker or the http worker itself is replaced."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
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
        began = monotonic()
        with load(running.port) as clients:
            replace_in_turn(running, count, 0, clients.go_on_until)
        elapsed = monotonic() - began
    print(f"{2 * count} reloads in {elapsed:.1f} s, requests: {dict(clients.outcomes)}")
    assert set(clients.outcomes) == {"right"}


def replace_in_turn(running: Web, count: int, seconds: float, go_on_until: Callable[[float], None]) -> None:
    """Save the handler and restart the http worker, `count` times each, spread over `seconds` of load."""
    source = running.project.folder / "web.py"
    code, begin = source.read_text(), monotonic()
    with running.project.connect() as connection:
        for number in range(1, count + 1):
            source.write_text(f"{code}\n# saved for the {number}. time\n")
            running.project.wait("changed: reloaded", count=number)
            connection.call("engine::workers::restart", {"name": "http"})
            running.project.wait("~ ready again", count=number)
            go_on_until(begin + seconds * number / count)


WRK_SCRIPT = """
wrk.method, wrk.body = "POST", '{"n":7}'
wrk.headers["content-type"] = "application/json"
local threads = {}
wrong = 0
setup = function(thread) table.insert(threads, thread) end
response = function(status, headers, body) if status ~= 200 or body ~= '{"n":7}' then wrong = wrong + 1 end end
done = function(summary)
  local errors, wrong = summary.errors, 0
  for _, thread in ipairs(threads) do wrong = wrong + thread:get("wrong") end
  io.write(string.format('@{"requests": %d, "seconds": %d, "wrong": %d, "status": %d, "connect": %d, "read": %d, '
    .. '"write": %d, "timeout": %d}', summary.requests, summary.duration / 1e6, wrong,
    errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
"""
# What wrk and its script count as a failed request.
FAILURES = ("wrong", "status", "connect", "read", "write", "timeout")


def still_runs_at(process: subprocess.Popen[str], moment: float) -> None:
    """Return at `moment`; the process may not end before."""
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(max(0.0, moment - monotonic()))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    shutil.which("wrk") is None, reason="the same with our own clients is the test above; this needs wrk"
)
def test_no_request_of_wrk_fails_in_a_minute_of_100_reloads(tmp_path: Path) -> None:
    (tmp_path / "post.lua").write_text(WRK_SCRIPT)
    project = tmp_path / "project"
    project.mkdir()
    with web(project, WORKER, "access_log = false", command="dev") as running:
        url = f"http://127.0.0.1:{running.port}/answer"
        command = ["wrk", "-t1", "-c64", "-d600s", "--timeout", "10s", "-s", str(tmp_path / "post.lua"), url]
        wrk = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            replace_in_turn(running, 50, 60, lambda moment: still_runs_at(wrk, moment))
            wrk.send_signal(signal.SIGINT)  # it ends with its summary
            printed, _ = wrk.communicate(timeout=BOUND)
        finally:
            wrk.kill()
            wrk.wait(BOUND)
    figures = json.loads(printed.rpartition("@")[2])
    print(f"100 reloads under wrk: {figures}")
    assert figures["requests"] > 0
    assert [figures[name] for name in FAILURES] == [0] * len(FAILURES)
