"""Observers of the published Python SDK 0.25.0, unmodified: states, filters, deliveries, limits and codes.

What needs an engine that is killed is in test_official_project.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from iii.engine.observing.delivery import MAX_DEPTH
from tests.support import official
from tests.support.harness import BOUND, Client, Engine

SCRIPT = str(official.HERE / "official_observer.py")


class Sdk:
    """A running official_observer.py, driven by calls of a client."""

    def __init__(self, engine: Engine, client: Client, name: str) -> None:
        self.engine, self.client, self.name = engine, client, name

    def id(self, function: str) -> str:
        return f"{self.name}::{function}"

    def call(self, function: str, data: Any = None, **more: Any) -> Any:
        answer = self.client.invoke(self.id(function), data, **more)
        assert "error" not in answer, answer
        return answer.get("result")

    def observe(self, source: dict[str, Any] | None = None, target: str = "target", **options: Any) -> str:
        """Observe `charge`, or what `source` says; return the observer's id."""
        source = {"function_id": self.id("charge"), **(source or {})}
        target = target if "::" in target else self.id(target)
        id: str = self.call("observe", {"source": source, "target": target, "options": options})
        return id

    def until(self, id: str, state: str) -> dict[str, Any]:
        """Wait until the SDK knows of this state; return what it knows."""
        end = time.monotonic() + BOUND
        while time.monotonic() < end:
            known: dict[str, Any] = self.call("observed", {"id": id})
            if known["state"] == state:
                return known
        raise AssertionError(f"observer {id} is {known}, never {state}")

    def active(self, source: dict[str, Any] | None = None, target: str = "target", **options: Any) -> str:
        id = self.observe(source, target, **options)
        self.until(id, "active")
        return id

    def code(self, id: str, state: str = "error") -> str:
        code: str = self.until(id, state)["reason"]["code"]
        return code

    def taken(self, count: int) -> list[dict[str, Any]]:
        """Return what the target has got, once it is this much and nothing more is under way."""
        taken: list[dict[str, Any]] = []
        end = time.monotonic() + BOUND
        while time.monotonic() < end:
            taken += self.call("drain")
            if len(taken) >= count and self.engine.ask(lambda: not self.engine.observing.delivery.running):
                break
        taken += self.call("drain")
        assert len(taken) == count
        return taken

    def row(self, id: str) -> dict[str, Any]:
        row: dict[str, Any] = self.client.invoke("engine::observers::get", {"id": id})["result"]["observer"]
        return row


@contextmanager
def running(engine: Engine, name: str) -> Iterator[Sdk]:
    with ExitStack() as stack:
        command = [str(official.python_with("0.25.0")), SCRIPT, engine.url, name]
        stack.enter_context(official.running(command, III_URL=engine.url))
        engine.until(lambda: engine.router.registry.find("default", f"{name}::is_local") is not None)
        yield Sdk(engine, stack.enter_context(engine.client()), name)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as running:
        yield running


@pytest.fixture(scope="module")
def worker(engine: Engine) -> Iterator[Sdk]:
    with running(engine, "a") as sdk:
        yield sdk


@pytest.fixture
def sdk(worker: Sdk) -> Iterator[Sdk]:
    """The worker, without observers before and after a test."""
    yield worker
    for id in list(worker.engine.ask(lambda: list(worker.engine.observing.observers))):
        worker.call("dispose", {"id": id})
    worker.engine.until(lambda: not worker.engine.observing.observers)
    worker.call("drain")


def test_a_routed_call_and_a_local_one_give_the_same_envelope(sdk: Sdk) -> None:
    id = sdk.active(metadata={"team": "pay"})
    assert sdk.call("is_local")
    sdk.call("charge", {"n": 0})
    sdk.call("call_charge", {"payload": {}})
    routed, local = sdk.taken(2)
    for got in (routed, local):
        data = got["data"]
        assert (data["observer_id"], data["function_id"], data["namespace"]) == (id, sdk.id("charge"), "default")
        assert (data["status"], data["input"], data["output"]) == ("success", {"n": 0}, {"charged": {"n": 0}})
        assert got["metadata"] == {"team": "pay"}
        assert got["depth"] == 1
        assert got["caller"] == {
            "worker_name": "iii-engine",
            "function_id": sdk.id("charge"),
            "invocation_id": data["invocation_id"],
        }
    assert routed["data"].keys() == local["data"].keys()
    assert local["data"]["caller"]["function_id"] == sdk.id("call_charge")
    assert local["data"]["caller"]["worker_name"] == sdk.name
    assert sdk.row(id)["fires"] == 2


@pytest.mark.parametrize(
    ("filters", "matching"),
    [
        ({"input.x": {"$eq": 1}}, {"x": 1.0}),
        ({"input.x": {"$ne": 1}}, {"x": True}),
        ({"input.x": {"$in": [1, 2]}}, {"x": 2}),
        ({"input.x": {"$nin": [1, 2]}}, {}),
        ({"input.x": {"$gt": 1}}, {"x": 2}),
        ({"input.x": {"$gte": 2}}, {"x": 2}),
        ({"input.x": {"$lt": "b"}}, {"x": "a"}),
        ({"input.x": {"$lte": "b"}}, {"x": "b"}),
        ({"input.x": {"$exists": False}}, {}),
        ({"input.x": {"$prefix": "ab"}}, {"x": "abc"}),
        ({"input.x": {"$any": {"$gt": 5}}}, {"x": [1, 6]}),
        ({"input.x": {"$any": {"@.y": {"$eq": 1}}}}, {"x": [{"y": 1}]}),
        ({"$or": [{"input.x": {"$eq": 7}}, {"output.charged.x": {"$eq": 8}}]}, {"x": 8}),
        ({"$not": {"input.x": {"$exists": True}}}, {}),
        ({"$and": [{"input.x": {"$eq": 1}}, {"input.a\\.b": {"$eq": 2}}]}, {"x": 1, "a.b": 2}),
        ({"metadata.tenant": {"$eq": "t"}, "caller.worker_id": {"$exists": True}}, {"tenant": "t"}),
    ],
)
def test_each_filter_lets_through_what_it_says_routed_and_local(
    sdk: Sdk, filters: dict[str, Any], matching: dict[str, Any]
) -> None:
    sdk.active({"filters": filters, "capture": ["input"]})
    other = {"x": None, "$ne": 1} if "$ne" in str(filters) else {"x": 1, "else": True}
    if matching.get("tenant"):
        sdk.call("charge", matching, metadata={"tenant": "t"})
        assert sdk.taken(1)[0]["data"]["input"] == matching
        return
    if filters in ({"input.x": {"$eq": 1}}, {"input.x": {"$in": [1, 2]}}):
        other = {"x": True}
    elif "$ne" in str(filters):
        other = {"x": 1}
    sdk.call("charge", other)
    sdk.call("charge", matching)
    sdk.call("call_charge", {"payload": other})
    sdk.call("call_charge", {"payload": matching})
    got = [one["data"]["input"] for one in sdk.taken(2)]
    assert [{key: value for key, value in one.items() if key != "n"} for one in got] == [matching, matching]


@pytest.mark.parametrize(
    ("on", "statuses"), [("success", ["success"]), ("error", ["error"]), ("complete", ["success", "error"])]
)
def test_an_observer_gets_the_outcomes_it_asked_for(sdk: Sdk, on: str, statuses: list[str]) -> None:
    sdk.active({"on": on, "capture": ["output", "error"]})
    for arguments in ({"payload": {}}, {"payload": {"fail": "no money"}}):
        sdk.call("call_charge", arguments)
        answer = sdk.client.invoke(sdk.id("charge"), arguments["payload"])
        assert ("error" in answer) is ("fail" in arguments["payload"])
    taken = sdk.taken(2 * len(statuses))
    assert sorted(one["data"]["status"] for one in taken) == sorted(statuses * 2)
    for one in taken:
        if one["data"]["status"] == "error":
            assert one["data"]["error"]["message"] == "no money"
            assert one["data"].keys() >= {"error"}
            assert "output" not in one["data"]


@pytest.mark.parametrize(("deliver", "expected"), [("input", {"n": 0}), ("output", {"charged": {"n": 0}})])
def test_an_observer_gets_one_part_alone(sdk: Sdk, deliver: str, expected: Any) -> None:
    sdk.active({"deliver": deliver})
    sdk.call("charge", {"n": 0})
    sdk.call("call_charge", {"payload": {}})
    assert [one["data"] for one in sdk.taken(2)] == [expected, expected]


def test_an_observer_ends_after_its_fires(sdk: Sdk) -> None:
    id = sdk.active(max_fires=3)
    sdk.call("call_charge", {"payload": {}, "count": 2})
    sdk.taken(2)
    for number in range(3):
        sdk.call("charge", number)
    assert sdk.code(id, "disposed") == "MAX_FIRES"
    assert len(sdk.taken(1)) == 1


def test_an_observer_ends_after_its_time(sdk: Sdk) -> None:
    id = sdk.active(expires_in_ms=50)
    assert sdk.code(id, "disposed") == "EXPIRED"
    sdk.call("charge", 1)
    sdk.taken(0)


def test_a_disposed_observer_gets_nothing_more(sdk: Sdk) -> None:
    id = sdk.active()
    sdk.call("dispose", {"id": id})
    assert sdk.code(id, "disposed") == "UNOBSERVED"
    sdk.engine.until(lambda: id not in sdk.engine.observing.observers)
    sdk.call("charge", 1)
    sdk.taken(0)


def test_what_is_over_the_calls_in_flight_waits_its_turn(sdk: Sdk) -> None:
    with sdk.engine.client() as slow:
        slow.register("slow::target")
        slow.say_who("slow")
        slow.sync()
        id = sdk.active(target="slow::target", max_in_flight=2)
        for number in range(5):
            sdk.call("charge", number)
        first = [slow.expect("invokefunction", function_id="slow::target") for _ in range(2)]
        row = sdk.row(id)
        assert (row["fires"], row["in_flight"], row["queued"]) == (5, 2, 3)
        seen = [call["data"]["input"] for call in first]
        for call in first:
            slow.send(
                {"type": "invocationresult", "invocation_id": call["invocation_id"], "function_id": "slow::target"}
            )
        while len(seen) < 5:
            call = slow.expect("invokefunction", function_id="slow::target")
            assert sdk.row(id)["in_flight"] <= 2
            seen.append(call["data"]["input"])
            slow.send(
                {"type": "invocationresult", "invocation_id": call["invocation_id"], "function_id": "slow::target"}
            )
        assert seen == [0, 1, 2, 3, 4]


def test_ten_thousand_calls_are_each_shown_once(sdk: Sdk) -> None:
    """Half of them routed by the engine, half run by the worker itself and reported."""
    id = sdk.active({"deliver": "input"})
    with sdk.engine.client() as other:
        call = {"type": "invokefunction", "function_id": sdk.id("charge")}
        for start in range(0, 5000, 250):
            ids = [f"routed-{number}" for number in range(start, start + 250)]
            other.send(*({**call, "invocation_id": one, "data": {"n": one}} for one in ids))
            for one in ids:
                other.expect("invocationresult", invocation_id=one)
    for _ in range(10):
        assert sdk.call("call_charge", {"payload": {"local": True}, "count": 500}) == 500
    shown = [one["data"]["n"] for one in sdk.taken(10_000)]
    assert sorted(map(str, shown)) == sorted([f"routed-{n}" for n in range(5000)] + [str(n) for n in range(500)] * 10)
    row = sdk.row(id)
    assert (row["fires"], row["failed"], row["dropped"]) == (10_000, 0, {})


def test_a_circle_of_observers_ends_after_eight(sdk: Sdk) -> None:
    id = sdk.active({"filters": {"input.again": {"$eq": True}}}, target="chain")
    sdk.call("charge", {"again": True})
    sdk.engine.until(lambda: sdk.engine.observing.observers[id].drops["LOOP_GUARD"] == 1)
    assert len(sdk.taken(MAX_DEPTH)) == MAX_DEPTH
    assert sdk.row(id)["dropped"] == {"LOOP_GUARD": 1}


# What cannot be observed


def test_each_error_has_its_code(sdk: Sdk) -> None:
    feed = {"function_id": sdk.id("feed")}
    assert sdk.code(sdk.observe(target="charge")) == "SELF_TARGET"
    assert sdk.code(sdk.observe({"args": {"a": 1}})) == "INVALID_ARGS"
    assert sdk.code(sdk.observe(feed | {"args": {"topic": 1}})) == "INVALID_ARGS"
    assert sdk.code(sdk.observe({"filters": {"input.x": 5}})) == "INVALID_FILTER"
    assert sdk.code(sdk.observe({"function_id": sdk.id("closed")})) == "NOT_OBSERVABLE"
    assert sdk.code(sdk.observe({"on": "sometimes"})) == "UNSUPPORTED"
    assert sdk.code(sdk.observe(feed | {"args": {"reject": True}})) == "NO_SUCH_FEED"
    assert sdk.code(sdk.observe(feed | {"args": {"raise": True}})) == "OBSERVE_REJECTED"
    sdk.active(id="mine")
    with sdk.engine.client() as thief:
        thief.say_who("thief")
        ends = {"source": {"function_id": sdk.id("charge")}, "target": {"function_id": sdk.id("target")}}
        thief.send({"type": "observe", "id": "mine", **ends})
        assert thief.expect("observeresult", id="mine")["error"]["code"] == "FORBIDDEN"
        thief.send({"type": "unobserve", "id": "mine"})
        thief.sync()
    assert sdk.row("mine")["state"] == "active"


def test_an_owner_can_refuse_an_observer_later(sdk: Sdk) -> None:
    id = sdk.active({"function_id": sdk.id("feed")})
    sdk.call("reject_late")
    assert sdk.code(id) == "LATE"


def test_an_owner_that_does_not_answer_is_given_up() -> None:
    with Engine() as engine, engine.client() as owner, engine.client() as other:
        engine.longest_wait = 0.05
        owner.send({"type": "registerfunction", "id": "mute::feed", "observe": {"delivery": "owner"}})
        owner.say_who("mute", features=["observe.v1"])
        owner.expect("functionregistered", id="mute::feed")
        other.register("o::target")
        other.say_who("o")
        ends = {"source": {"function_id": "mute::feed"}, "target": {"function_id": "o::target"}}
        other.send({"type": "observe", "id": "late", **ends})
        assert other.expect("observeresult", id="late")["state"] == "pending"
        changed = other.expect("observerstatechanged", id="late")
        assert (changed["state"], changed["reason"]["code"]) == ("error", "OWNER_TIMEOUT")


# What the function's worker gives


def test_an_owner_emits_to_its_observers_and_asks_their_targets(sdk: Sdk) -> None:
    feed = {"function_id": sdk.id("feed"), "args": {"topic": "a"}}
    id = sdk.active(feed | {"filters": {"input.e": {"$eq": 1}}}, metadata={"m": 1})
    assert ["added", id, {"topic": "a"}] in sdk.call("hooks")
    sdk.call("feed", {"e": 1})  # an ordinary call is not shown
    assert sdk.call("emit", {"event": {"e": 1}}) == [True]
    assert sdk.call("emit", {"event": {"e": 2}}) == [False]
    (emitted,) = sdk.taken(1)
    assert (emitted["data"]["input"], emitted["metadata"]) == ({"e": 1}, {"m": 1})
    assert sdk.call("ask", {"payload": {"e": 1}}) == [{"taken": 1}]
    assert sdk.call("ask", {"payload": {"e": 2}}) == [{"code": "FILTERS_NOT_MATCHED"}]
    (asked,) = sdk.taken(1)
    assert (asked["data"], asked["metadata"], asked["depth"]) == ({"e": 1}, {"m": 1}, 1)
    assert sdk.row(id)["fires"] == 2
    sdk.call("dispose", {"id": id})
    sdk.until(id, "disposed")
    sdk.engine.until(lambda: id not in sdk.engine.observing.observers)
    assert ["removed", id, {"topic": "a"}] in sdk.call("hooks")


def test_a_binding_to_the_type_that_a_function_names_as_its_old_one_becomes_an_observer(sdk: Sdk) -> None:
    """The binder knows nothing of observers: it gets the events, and a refusal as from any provider."""
    kind = f"{sdk.name}-feed"
    config = {"topic": "a", "more": None}
    with sdk.engine.client() as binder:
        binder.register("b::on-event")
        binder.say_who("binder")
        bind = {"type": "registertrigger", "trigger_type": kind, "function_id": "b::on-event"}
        binder.send({**bind, "id": "old", "config": config, "metadata": {"m": 1}})
        sdk.engine.until(
            lambda: (known := sdk.engine.observing.observers.get("old")) is not None and known.state == "active"
        )
        assert sdk.call("legacy") == [{"trigger_type": kind, "config": config}]
        assert sdk.row("old")["legacy"] == {"trigger_type": kind, "config": config}
        assert sdk.call("emit", {"event": {"e": 1}}) == [True]
        call = binder.expect("invokefunction", function_id="b::on-event")
        assert (call["data"], call["metadata"]) == ({"e": 1}, {"m": 1})
        rows = sdk.client.invoke("engine::registered-triggers::list", {"trigger_type": kind})["result"]
        assert [row["id"] for row in rows["registered_triggers"]] == ["old"]
        for id, wrong, code in (("n1", {"topic": 1}, "INVALID_ARGS"), ("n2", {"reject": True}, "NO_SUCH_FEED")):
            binder.send({**bind, "id": id, "config": wrong})
            assert binder.expect("triggerregistrationresult", id=id)["error"]["code"] == code
            assert id not in sdk.engine.ask(lambda: dict(sdk.engine.observing.observers))
        answer = sdk.client.invoke("engine::register_trigger", {**bind, "config": {"reject": True}})
        assert answer["error"]["code"] == "trigger_registration_failed"
        binder.send({"type": "unregistertrigger", "id": "old"})
        sdk.engine.until(lambda: "old" not in sdk.engine.observing.observers)
        assert sdk.call("emit", {"event": {"e": 2}}) == []
    assert ["removed", "old", config] in sdk.call("hooks")


def test_only_the_functions_worker_may_have_a_target_asked(sdk: Sdk) -> None:
    id = sdk.active({"function_id": sdk.id("feed")})
    answer = sdk.client.invoke(sdk.id("target"), 1, activation={"observer_id": id})
    assert answer["error"]["code"] == "OBSERVER_NOT_ACTIVE"


# Workers that come and go


def test_an_observer_waits_for_function_and_target_and_is_suspended_without_its_target(sdk: Sdk) -> None:
    id = sdk.observe({"function_id": "later::f"}, target="later::target")
    assert sdk.until(id, "pending")
    with sdk.engine.client() as later:
        later.register("later::f")
        later.say_who("later")
        later.sync()
        assert sdk.until(id, "pending")
        with sdk.engine.client() as targeted:
            targeted.register("later::target")
            targeted.say_who("targeted")
            sdk.until(id, "active")
        assert sdk.code(id, "suspended") == "TARGET_UNAVAILABLE"
    sdk.until(id, "pending")


def test_an_observer_outlives_a_lost_worker_for_a_while(sdk: Sdk) -> None:
    engine = sdk.engine
    ends = {"source": {"function_id": sdk.id("charge")}, "target": {"function_id": sdk.id("target")}}
    observe = {"type": "observe", "id": "kept", **ends}

    def come_back(client: Client, **more: Any) -> dict[str, Any]:
        client.say_who("comes-back")
        client.send({**observe, **more})
        return client.expect("observeresult", id="kept")

    with engine.client() as first:
        assert come_back(first)["state"] == "pending"
        assert first.expect("observerstatechanged", id="kept")["state"] == "active"
        sdk.call("charge", 1)
        sdk.taken(1)
    engine.until(lambda: engine.observing.observers["kept"].state == "suspended")
    assert sdk.row("kept")["reason"]["code"] == "OBSERVER_DISCONNECTED"
    sdk.call("charge", 2)
    sdk.taken(0)
    with engine.client() as second:
        assert come_back(second)["state"] == "active"
        assert sdk.row("kept")["fires"] == 1
        sdk.call("charge", 3)
        assert sdk.taken(1)[0]["data"]["input"] == 3
        # Another definition under the same id is another observer.
        come_back(second, metadata={"other": True})
        assert second.expect("observerstatechanged", id="kept", state="active")["fires"] == 0
        second.send({"type": "unobserve", "id": "kept"})
        second.sync()


def test_an_observer_whose_worker_stays_away_is_removed() -> None:
    with Engine() as engine, running(engine, "a") as sdk:
        engine.longest_wait = 0.05
        with engine.client() as away:
            away.say_who("away")
            ends = {"source": {"function_id": "a::feed"}, "target": {"function_id": "a::target"}}
            away.send({"type": "observe", "id": "gone", **ends})
            away.expect("observerstatechanged", id="gone", state="active")
        engine.until(lambda: not engine.observing.observers)
        assert [hook[:2] for hook in sdk.call("hooks")] == [["added", "gone"], ["removed", "gone"]]


def test_an_owner_that_connects_again_accepts_its_observers_without_its_hooks() -> None:
    with Engine() as engine, running(engine, "a") as sdk, engine.client() as other:
        other.register("o::target")
        other.say_who("other")
        ends = {"source": {"function_id": "a::feed"}, "target": {"function_id": "o::target"}}
        other.send({"type": "observe", "id": "kept", **ends})
        other.expect("observerstatechanged", id="kept", state="active")
        owner = engine.ask(lambda: engine.router.registry.find("default", "a::feed").providers[0])
        engine.ask(owner.close)
        other.expect("observerstatechanged", id="kept", state="pending")
        other.expect("observerstatechanged", id="kept", state="active")
        engine.until(lambda: engine.router.registry.find("default", "a::is_local") is not None)
        assert sdk.call("hooks") == [["added", "kept", {}]]
        assert sdk.call("emit", {"event": 1}) == [True]
        assert other.expect("invokefunction", function_id="o::target")["data"]["input"] == 1


def test_a_worker_that_dies_is_followed_by_its_next_process() -> None:
    with Engine() as engine, running(engine, "b") as observer:
        with running(engine, "a") as first:
            id = observer.active({"function_id": "a::charge"})
            first.call("charge", 1)
            observer.taken(1)
        observer.until(id, "pending")
        with running(engine, "a") as second:
            observer.until(id, "active")
            second.call("charge", 2)
            assert observer.taken(1)[0]["data"]["input"] == 2
            assert observer.row(id)["fires"] == 2


# Calls that a worker runs itself

STRICT = ("strict::f", "strict::free")


def test_local_dispatch_is_off_where_the_engine_has_to_see_the_calls(sdk: Sdk) -> None:
    with sdk.engine.client() as strict:
        schema = {"type": "object"}
        strict.send({"type": "registerfunction", "id": "strict::f", "request_format": schema})
        strict.register("strict::free")
        strict.say_who("strict", features=["observe.v1", "local-dispatch.v1"])
        told = strict.expect("functionregistered", id="strict::f")
        free = strict.expect("functionregistered", id="strict::free")
        rows = strict.invoke("engine::observers::list")["result"]["functions"]
        infos = {id: strict.invoke("engine::functions::info", {"function_id": id})["result"] for id in STRICT}
        whys = {row["function_id"]: row.get("why_not") for row in rows}
    assert free["local_dispatch"]
    assert free["revision"] > told["revision"] or told["revision"] > free["revision"]
    assert whys["strict::free"] is None
    assert told["local_dispatch"] is bool(whys["strict::f"] is None)
    assert {id: (info["local_dispatch"], info.get("why_not")) for id, info in infos.items()} == {
        id: (whys[id] is None, whys[id]) for id in STRICT
    }
    assert "local_dispatch" not in sdk.client.invoke("engine::functions::info", {"function_id": "engine::log::info"})


def test_what_a_worker_has_run_itself_counts_as_calls_of_its_function(engine: Engine) -> None:
    with engine.client() as client:
        client.register("counts::f")
        client.say_who("counts", features=["observe.v1"])
        client.expect("functionregistered", id="counts::f")
        stats = {"function_id": "counts::f", "count": 9, "errors": 2, "duration_ms_sum": 3.1}
        dropped = {"function_id": "counts::f", "reason": "BUFFER_FULL", "count": 2}
        ends = {"source": {"function_id": "counts::f"}, "target": {"function_id": "a::target"}}
        client.send({"type": "observe", "id": "c", **ends})
        client.send({"type": "localinvocationstats", "functions": [stats, "bad"], "dropped_reports": [dropped]})
        client.sync()
        function = engine.ask(lambda: engine.router.registry.find("default", "counts::f"))
        assert (function.answered, function.failed) == (9, 2)
        row = client.invoke("engine::observers::get", {"id": "c"})["result"]["observer"]
        assert row["dropped"] == {"BUFFER_FULL": 2}
        client.send({"type": "unobserve", "id": "c"})
        client.sync()
