"""The worker's connection: its id, its states, its end."""

from __future__ import annotations

import threading

import pytest

from iii import InvocationError
from iii.errors import RegistrationRejectedError
from tests.support.worker_support import BOUND, in_thread, next_call, pair


def test_the_worker_learns_its_id(joined):
    worker, engine = joined
    engine.send({"type": "workerregistered", "worker_id": "w-1", "reattach_token": "t"})
    assert worker.worker_id == "w-1"


@pytest.mark.parametrize(("text", "config"), [(None, {}), ("", {}), ('{"port":1}', {"port": 1}), ("[", {})])
def test_the_config_table_is_read_from_the_environment(joined, monkeypatch, text, config):
    monkeypatch.delenv("III_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("III_CONFIG", text)
    assert joined[0].config == config


def test_listeners_hear_the_state_now_and_its_changes():
    states = []
    with pair() as (worker, _):
        worker.add_connection_state_listener(states.append)
        off = worker.add_connection_state_listener(lambda state: states.append(f"other {state}"))
        off()
    assert states == ["connected", "other connected", "disconnected"]


def test_the_end_of_the_wire_fails_outstanding_and_later_calls():
    with pair() as (worker, engine):
        result = in_thread(lambda: worker.trigger("o::f"))
        next_call(engine)
    with pytest.raises(InvocationError, match="SHUTDOWN"):
        result()
    with pytest.raises(InvocationError, match="SHUTDOWN"):
        worker.trigger("o::f")


def test_a_rejected_worker_says_so_on_every_call(joined):
    worker, engine = joined
    result = in_thread(lambda: worker.trigger("o::f"))
    next_call(engine)
    engine.send({"type": "registrationrejected", "code": "WORKER_NAMESPACE_CONFLICT", "namespace": "default"})
    with pytest.raises(InvocationError, match=r"^WORKER_NAMESPACE_CONFLICT: registration is taken"):
        result()
    assert worker.get_connection_state() == "failed"
    with pytest.raises(RegistrationRejectedError):
        worker.trigger("o::f")


def test_a_rejected_function_leaves_the_worker_alone(joined, capsys):
    worker, engine = joined
    worker.register_function("m::f", lambda p: p)
    engine.send(
        {
            "type": "registrationrejected",
            "code": "FUNCTION_NAMESPACE_CONFLICT",
            "namespace": "default",
            "function_id": "m::g",
            "owner_worker_id": "w",
        }
    )
    assert engine.call("m::f", 1)["result"] == 1
    assert "m::g" in capsys.readouterr().err


def test_before_a_stop_a_listener_may_still_call_functions():
    with pair() as (worker, engine):
        worker.before_stop(lambda seconds: worker.trigger("a::last", seconds))
        engine.send({"type": "stop", "deadline_ms": 10_000})
        call = next_call(engine)
        assert call["data"] == 10.0
        engine.settle(call, result=None)
        worker._serve()


def test_stop_lets_running_handlers_finish():
    with pair() as (worker, engine):
        release = threading.Event()
        worker.register_function("m::slow", lambda p: release.wait(BOUND))
        engine.invoke("m::slow")
        engine.send({"type": "stop", "deadline_ms": 10_000}, {"type": "ping"})
        engine.expect("pong")
        release.set()
        assert engine.result()["result"] is True
        assert worker._dispatcher.ended.wait(BOUND)


def test_a_worker_shows_itself_in_one_line(joined):
    worker, _ = joined
    worker.register_function("m::f", print)
    assert repr(worker) == "<Worker unnamed connected, 1 functions, 0 running>"
