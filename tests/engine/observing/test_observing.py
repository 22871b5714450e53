"""Observers on a router without processes: who is shown what, the bounds, and what calls cost without any."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from iii.engine.observing import delivery
from iii.engine.observing.observer import Observer
from iii.engine.observing.observing import MAX_FIRES_PER_REPORT, MAX_PER_FUNCTION, Observing
from iii.engine.routing.payload_schemas import compile_result_schema, compile_schema
from iii.engine.routing.peer import Peer
from iii.engine.routing.tracer import Tracer
from iii.engine.tracing.sampling import Sampler, Sampling
from iii.protocol.codec import decode
from tests.support.routing import Net


class Timer:
    def __init__(self, seconds: float, act: Callable[[], None]) -> None:
        self.seconds, self.act, self.is_cancelled = seconds, act, False

    def cancel(self) -> None:
        self.is_cancelled = True


class Scene(Net):
    """A worker `shop` with the function `pay`, a worker `alerts` with `take`; `timers` run when a test says so."""

    def __init__(self) -> None:
        super().__init__(compile_schema=compile_schema, compile_result_schema=compile_result_schema)
        self.timers: list[Timer] = []
        self.observing = Observing(
            self.router,
            clock=lambda: self.now,
            wall_clock=lambda: 1_000_000.0 + self.now,
            call_later=self._call_later,
            compile_schema=compile_schema,
        )
        self.shop, self.alerts, self.client = self.peer("shop"), self.peer("alerts"), self.peer("web", kind="client")
        self.register(self.shop, "pay")
        self.register(self.alerts, "take")
        self.got(self.shop), self.got(self.alerts)

    def _call_later(self, seconds: float, act: Callable[[], None]) -> Timer:
        self.timers.append(Timer(seconds, act))
        return self.timers[-1]

    def pass_time(self, seconds: float = 0.0) -> None:
        """Run the timers that are due by then."""
        due, self.timers = [one for one in self.timers if one.seconds <= seconds], []
        for timer in due:
            if not timer.is_cancelled:
                timer.act()

    def observe(self, peer: Peer | None = None, id: str = "o", target: str = "take", **fields: Any) -> Observer | None:
        source = {"function_id": "pay", **{key: fields.pop(key) for key in list(fields) if key in SOURCE}}
        self.send(peer or self.alerts, "observe", id=id, source=source, target={"function_id": target}, **fields)
        return self.observing.observers.get(id)

    def pay(self, data: Any = None, id: str = "c1", **fields: Any) -> None:
        self.call(self.client, "pay", id, data=data)
        self.answer(self.shop, id, **fields)
        self.got(self.shop), self.got(self.client)

    def fired(self) -> list[dict[str, Any]]:
        return [message for message in self.got(self.alerts) if message["type"] == "invokefunction"]

    def settle(self) -> None:
        """Let the target answer everything, until nothing is under way."""
        while fired := self.fired():
            for call in fired:
                self.answer(self.alerts, call["invocation_id"])
            self.observing.delivery.peer.flush()

    def states(self) -> list[tuple[str, str | None]]:
        return [
            (message["state"], (message.get("reason") or message.get("error") or {}).get("code"))
            for message in self.got(self.alerts)
            if message["type"] in ("observeresult", "observerstatechanged")
        ]


SOURCE = ("function_id", "filters", "args", "capture", "on", "deliver")


@pytest.fixture
def scene() -> Scene:
    return Scene()


# What it costs


def test_calls_take_the_short_way_while_nobody_observes(scene: Scene) -> None:
    router = scene.router

    def is_short() -> bool:
        return (router._admit, router._settle) == (router.calls.admit, router.calls.settle)

    assert is_short()
    scene.observe(target="nowhere")
    assert is_short()  # it is pending
    scene.observe(id="active")
    assert not is_short()
    scene.send(scene.alerts, "unobserve", id="active")
    assert is_short()
    assert scene.observing.delivery.peer.id not in router.peer_table.peers


def test_other_functions_calls_are_their_own_lines_still(scene: Scene) -> None:
    scene.observe()
    scene.register(scene.shop, "other")
    line = b'{"type":"invokefunction","invocation_id":"c9","function_id":"other","data":{"a":1}}'
    scene.router.receive(scene.client, decode(line), line, scene.now)
    assert scene.shop.take_outbox() == [line]
    scene.pay(1)
    assert len(scene.fired()) == 1


# What is shown


def test_an_envelope_holds_what_was_asked_for(scene: Scene) -> None:
    scene.observe(capture=["input", "caller", "metadata"], metadata={"team": 1})
    scene.call(scene.client, "pay", data={"a": 1, "_caller_worker_id": "x"}, metadata={"m": 1})
    scene.now += 0.5
    scene.answer(scene.shop, result={"b": 2})
    (call,) = scene.fired()
    assert call["metadata"] == {"team": 1}
    assert call["activation"]["observer_id"] == "o"
    assert call["observe_depth"] == 1
    data = call["data"]
    assert data.pop("activation_id") == call["activation"]["activation_id"]
    assert data == {
        "observer_id": "o",
        "function_id": "pay",
        "namespace": "default",
        "invocation_id": "c1",
        "status": "success",
        "input": {"a": 1},
        "caller": {"worker_id": "web", "worker_name": "web"},
        "metadata": {"m": 1},
        "started_at_ms": 1_000_100_000,
        "duration_ms": 500.0,
    }


@pytest.mark.parametrize("way", ["timeout", "cancelled", "worker died", "result refused"])
def test_a_call_without_a_result_is_shown_once_as_an_error(scene: Scene, way: str) -> None:
    scene.register(scene.shop, "pay", response_format={"type": "integer"})
    scene.observe(on="complete", capture=["error"])
    scene.call(scene.client, "pay")
    code = {"timeout": "TIMEOUT", "worker died": "invocation_stopped", "result refused": "invalid_result"}.get(way, way)
    if way == "timeout":
        scene.later(31)
    elif way == "cancelled":
        scene.send(scene.client, "cancel", invocation_id="c1")
    elif way == "worker died":
        scene.got(scene.shop)
        scene.router.peer_table.detach(scene.shop)
    else:
        scene.answer(scene.shop, result="text")
    if way in ("timeout", "cancelled"):
        scene.answer(scene.shop)  # too late
    (call,) = scene.fired()
    assert (call["data"]["status"], call["data"]["error"]["code"].lower()) == ("error", code.lower())


def test_a_call_that_its_worker_never_got_is_not_shown(scene: Scene) -> None:
    scene.register(scene.shop, "pay", request_format={"type": "object"})
    scene.observe(on="complete")
    scene.call(scene.client, "pay", data=5)
    assert scene.one(scene.client)["error"]["code"] == "invalid_payload"
    assert scene.fired() == []


def test_values_too_large_to_be_filtered_are_counted(scene: Scene) -> None:
    observer = scene.observe(filters={"input.x": {"$exists": True}})
    assert observer is not None
    scene.pay({"x": "y" * (1024 * 1024)})
    assert scene.fired() == []
    assert observer.drops == {"TOO_LARGE": 1}


def test_an_observer_through_a_target_of_another_kind_still_ends(scene: Scene) -> None:
    """The depth is known although the worker of the target says nothing of it: by the calls under way."""
    observer = scene.observe()
    assert observer is not None
    scene.pay(0)
    for depth in range(1, 9):
        (call,) = scene.fired()
        assert call["observe_depth"] == depth
        nested = f"n{depth}"
        scene.call(scene.alerts, "pay", nested, caller={"invocation_id": call["invocation_id"]})
        scene.answer(scene.shop, nested)
        scene.answer(scene.alerts, call["invocation_id"])
    assert scene.fired() == []
    assert observer.drops == {"LOOP_GUARD": 1}


# Bounds


def test_what_waits_for_an_observer_has_a_bound(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MAX_WAITING", 3)
    observer = scene.observe(max_in_flight=1)
    assert observer is not None
    for number in range(6):
        scene.pay(number)
    assert (observer.fires, observer.in_flight, len(observer.waiting)) == (4, 1, 3)
    assert observer.drops == {"BUFFER_FULL": 2}
    held = scene.router.calls.budget.counted
    assert held > 0
    scene.settle()
    assert (observer.in_flight, len(observer.waiting), observer.waiting_bytes) == (0, 0, 0)
    assert scene.router.calls.budget.counted == held - 3 * (delivery.OVERHEAD + 1 + len('"ok"') + CALLER)


CALLER = len(json.dumps({"worker_id": "web", "worker_name": "web"}, separators=(",", ":")))


def test_an_observer_that_is_too_slow_for_its_bytes_is_not_sent_them_all(scene: Scene) -> None:
    observer = scene.observe()
    assert observer is not None
    for number in range(8):
        scene.pay("x" * 1_000_000, f"c{number}")
    assert observer.fires == 8
    assert observer.in_flight < 8
    scene.settle()
    assert (observer.in_flight, observer.failed, observer.drops) == (0, 0, {})


def test_a_function_and_a_worker_have_a_bounded_number_of_observers(scene: Scene) -> None:
    for number in range(MAX_PER_FUNCTION):
        scene.observe(id=f"o{number}")
    scene.got(scene.alerts)
    scene.observe(id="more")
    assert scene.states() == [("error", "limit_exceeded")]
    for number in range(900):
        scene.observe(id=f"p{number}", function_id=f"f{number}")
    scene.got(scene.alerts)
    scene.observe(id="most", function_id="g")
    assert scene.states() == [("error", "limit_exceeded")]
    assert "most" not in scene.observing.observers


def test_a_report_fires_a_bounded_number_of_times(scene: Scene) -> None:
    observer = scene.observe()
    assert observer is not None
    items = [{"function_id": "pay", "invocation_id": f"i{number}", "matched": ["o"]} for number in range(2_500)]
    scene.send(scene.shop, "invocationsobserved", items=[*items, {"function_id": 5}])
    assert observer.fires == MAX_FIRES_PER_REPORT
    assert observer.drops == {"BUFFER_FULL": 500}
    scene.send(scene.client, "invocationsobserved", items=items[:1])  # not its function
    assert observer.fires == MAX_FIRES_PER_REPORT
    assert scene.router.calls.counters["observe_inactive"] == 1
    assert scene.router.calls.counters["observe_unreadable"] == 1


# Functions' workers


def local_dispatch(scene: Scene, **fields: Any) -> bool:
    peer = scene.peer("local", features=frozenset({"observe.v1", "local-dispatch.v1"}))
    scene.register(peer, "f", **fields)
    (told,) = [message for message in scene.got(peer) if message["type"] == "functionregistered"]
    assert scene.observing.owners.told[peer].popitem()[1] is told["local_dispatch"]
    return bool(told["local_dispatch"])


def test_a_worker_runs_its_own_calls_where_no_rule_has_to_see_them(scene: Scene) -> None:
    assert local_dispatch(scene)


@pytest.mark.parametrize("schema", ["request_format", "response_format"])
def test_with_a_schema_the_engine_runs_the_calls(scene: Scene, schema: str) -> None:
    assert not local_dispatch(scene, **{schema: {"type": "object"}})


def test_when_tracing_begins_or_ends_the_worker_is_told(scene: Scene) -> None:
    peer = scene.peer("local", features=frozenset({"observe.v1", "local-dispatch.v1"}))
    scene.register(peer, "f")
    tracer = Tracer(
        Sampler(Sampling()),
        scene.router.calls.in_flight,
        mint=lambda bits: 1,
        clock=lambda: scene.now,
        on_finished=lambda: None,
        on_state_changed=lambda: None,
    )
    scene.router.trace(tracer)
    scene.router.trace(None)
    told = [message for message in scene.got(peer) if message["type"] == "functionregistered"]
    assert [message["local_dispatch"] for message in told] == [True, False, True]
    assert told[0]["revision"] < told[1]["revision"] < told[2]["revision"]


def test_a_worker_that_does_not_know_observers_hears_nothing_of_them(scene: Scene) -> None:
    scene.observe()
    scene.call(scene.client, "pay")
    call = scene.one(scene.shop)
    assert call["type"] == "invokefunction"
    assert call.keys().isdisjoint({"caller", "observe_depth", "activation"})
    scene.send(scene.alerts, "unobserve", id="o")
    assert scene.got(scene.shop) == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ({}, 0),
        ({"on": "error", "filters": {"output.x": {"$exists": True}}}, 1),
        ({"filters": {"error.code": {"$eq": "x"}}}, 1),
        ({"on": "error", "deliver": "output"}, 1),
        ({"on": "complete", "filters": {"error.code": {"$eq": "x"}}}, 0),
    ],
)
def test_what_can_never_come_to_anything_is_said(scene: Scene, source: dict[str, Any], count: int) -> None:
    scene.observe(**source)
    (result,) = [message for message in scene.got(scene.alerts) if message["type"] == "observeresult"]
    assert len(result.get("warnings", [])) == count


def test_a_worker_that_knows_observers_is_told_who_calls_it(scene: Scene) -> None:
    peer = scene.peer("aware", features=frozenset({"observe.v1"}))
    scene.register(peer, "f")
    scene.got(peer)
    scene.call(scene.client, "f", observe_depth=3)
    got = scene.one(peer)
    assert got["caller"] == {"worker_id": "web", "worker_name": "web"}
    assert got["observe_depth"] == 3
    scene.call(
        scene.shop,
        "f",
        "c2",
        caller={"function_id": "pay", "invocation_id": "i", "parent": {"worker_name": "w", "n": 1}},
    )
    assert scene.one(peer)["caller"] == {
        "worker_id": "shop",
        "worker_name": "shop",
        "function_id": "pay",
        "invocation_id": "i",
        "parent": {"worker_name": "w"},
    }


# Workers that observe


# Bindings to a function's old trigger type


def names(type: str | None, **fields: Any) -> dict[str, Any]:
    return {"observe": {"legacy_trigger_type": type, **fields}}


class Old:
    """The binding `old` of `alerts`, to a type that `pay` names or not."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        scene.send(scene.alerts, "registertrigger", id="old", trigger_type="paid", function_id="take", config={"a": 1})
        self.run()

    def run(self) -> None:
        """Let the engine's own peer read what it was sent, and timers that are due do their work."""
        self.scene.pass_time()
        while self.scene.observing.legacy_triggers.peer.outbox:
            self.scene.observing.legacy_triggers.peer.flush()

    def register(self, function: str = "pay", **fields: Any) -> None:
        self.scene.register(self.scene.shop, function, **fields)
        self.run()

    @property
    def source(self) -> str | None:
        observer = self.scene.observing.observers.get("old")
        return None if observer is None else observer.source[1]


def test_a_binding_follows_the_function_that_names_its_type(scene: Scene) -> None:
    old = Old(scene)
    assert old.source is None
    old.register(**names("paid"))
    assert old.source == "pay"
    scene.got(scene.alerts)
    scene.pay({"n": 1})
    assert [call["data"] for call in scene.fired()] == [{"n": 1}]
    # Another function names it: what was bound moves there, as to another provider.
    old.register("refund", **names("paid"))
    assert old.source == "refund"
    old.register("refund")
    assert old.source is None
    old.register("refund", **names("paid"))
    assert old.source == "refund"
    scene.send(scene.shop, "unregisterfunction", id="refund")
    old.run()
    assert (old.source, scene.observing.observers) == (None, {})


def test_a_function_that_allows_no_observers_refuses_the_bindings(scene: Scene) -> None:
    old = Old(scene)
    old.register(**names("paid", allow=False))
    (refused,) = [message for message in scene.got(scene.alerts) if message["type"] == "triggerregistrationresult"]
    assert refused["error"]["code"] == "NOT_OBSERVABLE"
    assert scene.observing.observers == {}


def test_a_binding_that_cannot_be_an_observer_is_refused_and_costs_no_other_one(scene: Scene) -> None:
    other = scene.peer("other")
    scene.register(scene.shop, "f")
    ends = {"source": {"function_id": "f"}, "target": {"function_id": "take"}}
    scene.send(other, "observe", id="old", **ends)
    old = Old(scene)
    old.register(**names("paid"))
    (refused,) = [message for message in scene.got(scene.alerts) if message["type"] == "triggerregistrationresult"]
    assert refused["error"]["code"] == "FORBIDDEN"
    assert scene.observing.observers["old"].peers == [other]
    for number in range(MAX_PER_FUNCTION + 1):
        scene.bind(scene.alerts, f"b{number}", "paid", "take")
        old.run()
    answers = [message for message in scene.got(scene.alerts) if message["type"] == "triggerregistrationresult"]
    assert [(message["id"], message["error"]["code"]) for message in answers] == [
        (f"b{MAX_PER_FUNCTION}", "limit_exceeded")
    ]
    scene.send(scene.alerts, "unregistertrigger", id="b0")
    old.run()
    old.run()
    assert f"b{MAX_PER_FUNCTION}" in scene.observing.observers


def test_a_worker_that_leaves_takes_its_old_type_along(scene: Scene) -> None:
    old = Old(scene)
    old.register(**names("paid"))
    scene.router.peer_table.detach(scene.shop)
    old.run()
    assert scene.router.bindings.types == {}
    assert (old.source, scene.router.bindings.find("old") is not None) == (None, True)


def test_two_processes_of_a_worker_share_an_observer_with_an_id(scene: Scene) -> None:
    first, second = (scene.worker("many", instance=instance) for instance in (1, 2))
    for peer in (first, second):
        scene.observe(peer)
        scene.router.peer_table.promote(peer)
    observer = scene.observing.observers["o"]
    assert observer.peers == [first, second]
    scene.router.peer_table.detach(first)
    assert observer.state == "active"
    scene.pay(1)
    assert len(scene.fired()) == 1
    scene.router.peer_table.detach(second)
    assert observer.state == "suspended"
    scene.pass_time(30.0)
    assert scene.observing.observers == {}


def test_what_waits_is_delivered_when_the_target_is_back(scene: Scene) -> None:
    observer = scene.observe(scene.client, max_in_flight=1)
    assert observer is not None
    for number in range(3):
        scene.pay(number)
    scene.router.peer_table.detach(scene.alerts)
    scene.pass_time()
    assert observer.state == "suspended"
    scene.observing.delivery.peer.flush()
    scene.pay(3)
    assert observer.drops == {"INACTIVE": 1}
    scene.alerts = scene.peer("alerts2")
    scene.register(scene.alerts, "take")
    assert [call["data"]["input"] for call in scene.fired()] == [1]


def test_another_unnamed_peer_cannot_have_an_observer(scene: Scene) -> None:
    one, other = scene.peer(""), scene.peer("")
    scene.observe(one)
    scene.observe(other)
    scene.send(other, "unobserve", id="o")
    assert scene.observing.observers["o"].state == "active"
