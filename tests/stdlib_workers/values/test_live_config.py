"""Live settings when the configuration worker does not answer in time: asked once more, and no more than that."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.values import live_config
from stdlib_workers.values.live_config import LiveConfig

BOUND = 20.0
VALUE = {"queue_configs": {"mail": {"concurrency": 3}}}


class LateWorker:
    """The first `late` reads of the stored value take too long."""

    def __init__(self, late: int) -> None:
        self.late = late
        self.reads = 0
        self.was_read_again = Event()

    def register_trigger(self, _: Any) -> None:
        """Nothing fires here."""

    def trigger(self, request: Any) -> Any:
        name = request["function_id"]
        if name == "engine::functions::list":
            return {"functions": [{}]}
        if name != "configuration::get":
            return {}
        self.reads += 1
        if self.reads > 1:
            self.was_read_again.set()
        if self.reads <= self.late:
            raise InvocationError("TIMEOUT", "no answer")
        return {"value": VALUE}


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_config, "RETRY_SECONDS", 0.01)


@pytest.mark.usefixtures("soon")
def test_a_late_answer_is_asked_for_once_more() -> None:
    taken: list[Any] = []
    has_taken = Event()

    def apply(options: Any) -> None:
        taken.append(options)
        has_taken.set()

    worker: Any = LateWorker(1)
    LiveConfig(worker, "queue", {}, lambda options: options, apply).follow()
    assert has_taken.wait(BOUND)
    assert (taken, worker.reads) == ([VALUE], 2)


@pytest.mark.usefixtures("soon")
def test_after_the_second_time_everything_stays_and_the_log_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    worker: Any = LateWorker(2)
    live = LiveConfig(worker, "queue", {}, lambda options: options, pytest.fail)
    live.follow()
    assert worker.was_read_again.wait(BOUND)
    with live._lock:  # the second look has ended
        pass
    assert worker.reads == 2
    assert "the settings stay as they are: no answer" in capfd.readouterr().err
