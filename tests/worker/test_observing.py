"""`worker.observe`: the message it sends, the states it hears of, and an engine that knows nothing of observers."""

from __future__ import annotations

from threading import Event

import pytest

from iii import ObserveRejection
from tests.support.worker_support import BOUND, in_thread

HELLO = {"type": "workerregistered", "worker_id": "w-1", "reattach_token": "t"}


def greet(worker, engine, *features):
    engine.send({**HELLO, "features": list(features)})
    assert worker.worker_id == "w-1"


def test_only_what_is_set_is_sent(joined):
    worker, engine = joined
    greet(worker, engine, "observe.v1")
    observer = worker.observe({"function_id": "a::f", "on": None}, "b::g", {"max_fires": 2, "id": "o"})
    sent = engine.expect("observe")
    ends = {"source": {"function_id": "a::f"}, "target": {"function_id": "b::g"}}
    assert sent == {"type": "observe", "id": "o", "max_fires": 2, **ends}
    observer.dispose()
    assert engine.expect("unobserve") == {"type": "unobserve", "id": "o"}
    observer.dispose()


def test_an_observer_follows_what_the_engine_says(joined):
    worker, engine = joined
    greet(worker, engine, "observe.v1")
    observer = worker.observe({"function_id": "a::f"}, {"function_id": "b::g", "namespace": "n"}, {"id": "o"})
    ready = in_thread(lambda: observer.ready(BOUND))
    engine.send({"type": "observeresult", "id": "o", "state": "pending", "warnings": ["never"]})
    engine.send({"type": "observerstatechanged", "id": "o", "state": "active", "fires": 0})
    ready()
    is_over = Event()
    observer.on_state_change(lambda state, reason: is_over.set())
    gone = {"code": "MAX_FIRES", "message": "enough"}
    engine.send({"type": "observerstatechanged", "id": "o", "state": "disposed", "reason": gone, "fires": 1})
    assert is_over.wait(BOUND)
    with pytest.raises(ObserveRejection, match="MAX_FIRES: enough"):
        observer.ready(BOUND)
    worker.observe({"function_id": "a::f"}, "b::g", {"id": "o"})  # the id is free again


def test_an_engine_that_knows_no_observers_supports_none(joined):
    worker, engine = joined
    greet(worker, engine)
    observer = worker.observe({"function_id": "a::f"}, "b::g")
    with pytest.raises(ObserveRejection, match="UNSUPPORTED"):
        observer.ready(BOUND)


def test_nor_does_one_that_says_so_after_the_observer_was_made(joined):
    worker, engine = joined
    observer = worker.observe({"function_id": "a::f"}, "b::g")
    greet(worker, engine)
    with pytest.raises(ObserveRejection, match="UNSUPPORTED"):
        observer.ready(BOUND)


@pytest.mark.parametrize(
    ("source", "target"), [({}, "b::g"), ({"function_id": " "}, "b::g"), ({"function_id": "a"}, {})]
)
def test_an_observer_needs_two_functions(joined, source, target):
    with pytest.raises(ValueError, match="needs a function_id"):
        joined[0].observe(source, target)
