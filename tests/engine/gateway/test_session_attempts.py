"""What a session tries against a project, one attempt a test: over the real router and gateway, without processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from iii.engine.gateway.authentication import AuthPolicy
from iii.engine.gateway.rbac_session import RULES_CHANGED
from iii.engine.routing.peer import Peer
from iii.engine.security.rbac import AuthResult, Filter, Rules
from tests.support.session_world import RULES, SECRET, SessionWorld, Socket

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def world() -> AsyncIterator[SessionWorld]:
    world = SessionWorld()
    yield world
    world.close()


@pytest.fixture
async def middleware_world() -> AsyncIterator[SessionWorld]:
    """One whose listener has a middleware, which refuses every call."""
    world = SessionWorld(middleware=True)
    yield world
    world.close()


def calls_of(world: SessionWorld, worker: str, function: str) -> list[dict[str, Any]]:
    """The calls of a function that a worker of the project got."""
    messages = world.got.get(worker, [])
    return [each for each in messages if each["type"] == "invokefunction" and each["function_id"] == function]


BIND: dict[str, Any] = {
    "type": "registertrigger",
    "id": "t",
    "trigger_type": "cron",
    "function_id": "api::open",
    "config": {},
}


# Names


async def test_a_name_that_a_session_has_goes_to_the_project_at_once(world: SessionWorld) -> None:
    me = world.session("me")
    await world.say(me, {"type": "registerfunction", "id": "new::f"}, {"type": "registertriggertype", "id": "new"})
    late = world.start("late", "new::f", types=("new",))
    await world.settle()
    told = [json.loads(line) for line in me._connection.lines]  # type: ignore[attr-defined]
    assert [each["function_id"] for each in told if each["type"] == "registrationrejected"] == ["new::f"]
    assert "took over new::f, which session me had registered" in world.notices
    assert "took over trigger type new, which session me had registered" in world.notices
    world.send(world.shop, "invokefunction", function_id="new::f", data={"card": 4111})
    assert [call["data"] for call in calls_of(world, "late", "new::f")] == [{"card": 4111}]
    assert world.router.bindings.types["default", "new"].provider is late


async def test_the_name_stays_with_the_project_when_its_worker_fails(world: SessionWorld) -> None:
    me = world.session("me")
    await world.say(me, {"type": "registerfunction", "id": "new::f"})
    late = world.start("late", "new::f")
    world.router.peer_table.detach(late)
    world.router.peer_table.refuse_calls("late", {"state": "failed"})
    await world.say(me, {"type": "registerfunction", "id": "new::f"})
    answer = await world.call(me, "api::open")
    assert answer["result"] == "fine"
    function = world.router.registry.find("default", "new::f")
    assert function is not None
    assert (function.owner.name, function.providers) == ("late", [])


async def test_while_workers_start_a_session_gets_no_name(world: SessionWorld) -> None:
    world.router.peer_table.expect("slow")
    me = world.session("me")
    await world.say(
        me, {"type": "registerfunction", "id": "slow-thing::f"}, {"type": "registerfunction", "id": "mine::f"}
    )
    assert world.router.registry.find("default", "mine::f") is None
    world.start("slow", "slow-thing::f")
    await world.settle()
    assert world.router.registry.find("default", "slow-thing::f").owner.name == "slow"  # type: ignore[union-attr]
    assert world.router.registry.find("default", "mine::f").owner.name == "me"  # type: ignore[union-attr]


async def test_a_session_that_leaves_while_workers_start_leaves_nothing(world: SessionWorld) -> None:
    world.router.peer_table.expect("slow")
    me = world.session("me")
    await world.say(me, {"type": "registerfunction", "id": "mine::f"})
    me.on_closed()
    world.start("slow")
    assert world.router.registry.find("default", "mine::f") is None


async def test_another_session_stands_by_for_a_session_and_never_for_the_project(world: SessionWorld) -> None:
    first, second = world.session("first"), world.session("second")
    for session in (first, second):
        await world.say(session, {"type": "registerfunction", "id": "mine::f"})
        await world.say(session, {"type": "registerfunction", "id": "db::secret"})
    first.on_closed()
    await world.settle()
    assert world.router.registry.find("default", "mine::f").providers == [second.peer]  # type: ignore[union-attr]
    assert world.router.registry.find("default", "db::secret").standbys == []  # type: ignore[union-attr]


async def test_the_name_of_a_worker_goes_to_the_project(world: SessionWorld) -> None:
    me = world.session("helper")
    await world.settle()
    newcomer = world.start("other")  # supervised workers ask nobody
    own = world.session("shop")
    await world.settle()
    assert own.peer.name != "shop"
    assert newcomer.name == "other"
    root = Peer("root", kind="worker")
    world.router.peer_table.attach(root)
    assert world.router.peer_table.introduce(root, "helper", None) is None
    world.pump.turn()
    assert isinstance(me._connection, Socket)
    assert not me._connection.is_open


async def test_the_names_of_a_worker_that_was_started_by_hand_wait_for_it(world: SessionWorld) -> None:
    by_hand = Peer("by-hand", kind="worker", name="by-hand")
    world.router.peer_table.attach(by_hand)
    world.register(by_hand, "hand::f", "hand::given-up")
    world.send(by_hand, "registertriggertype", id="hand")
    world.send(by_hand, "unregisterfunction", id="hand::given-up")
    world.router.peer_table.detach(by_hand)
    me = world.session("me")
    wanted = [{"type": "registerfunction", "id": id} for id in ("hand::f", "hand::given-up")]
    await world.say(me, *wanted, {"type": "registertriggertype", "id": "hand"})
    assert world.router.registry.find("default", "hand::f") is None
    assert world.router.registry.find("default", "hand::given-up") is not None
    assert ("default", "hand") not in world.router.bindings.types


# Who calls


@pytest.mark.parametrize("action", [None, {"type": "void"}, {"type": "enqueue", "queue": "q"}])
async def test_what_is_said_of_a_caller_is_said_by_the_engine(world: SessionWorld, action: Any) -> None:
    me = world.session("me")
    await world.call(
        me,
        "api::open",
        {"a": 1, "_caller_worker_id": "admin"},
        action=action,
        metadata={"iii.job": {"id": "forged"}, "mine": 1},
        caller={"invocation_id": "x", "function_id": "admin"},
    )
    (call,) = calls_of(world, "shop", "api::open")
    assert call["data"] == {"a": 1, "_caller_worker_id": me.peer.id}
    assert call["metadata"].get("iii.job") in (
        [None] if action is None or action["type"] == "void" else [{"id": "real"}]
    )
    assert call.get("caller") is None


async def test_a_call_within_a_call_names_the_outer_one_as_the_engine_knows_it(world: SessionWorld) -> None:
    me = world.session("me")
    await world.say(me, {"type": "registerfunction", "id": "mine::f"})
    world.send(world.state, "invokefunction", function_id="mine::f", invocation_id="outer")
    await world.call(me, "api::open", {}, caller={"invocation_id": "outer", "function_id": "admin"})
    (call,) = calls_of(world, "shop", "api::open")
    assert call["caller"] == {"invocation_id": "outer", "function_id": "mine::f"}


async def test_no_job_carries_what_a_session_wrote_about_its_caller(world: SessionWorld) -> None:
    me = world.session("me")
    job = {"queue": "q", "function_id": "api::open", "data": {"_caller_worker_id": "admin"}, "messageReceiptId": "m"}
    await world.call(me, "engine::queue::enqueue", job | {"metadata": {"iii.job": "forged", "iii.trigger": "x"}})
    (call,) = calls_of(world, "shop", "api::open")
    assert call["data"] == {}
    assert call["metadata"] == {"iii.job": {"id": "real"}}


# What runs


@pytest.mark.parametrize(
    "job",
    [
        {"function_id": "api::open", "namespace": "private"},
        {"function_id": "db::secret"},
        {"function_id": "engine::queue::enqueue", "data": {"function_id": "db::secret", "messageReceiptId": "m"}},
        {"function_id": "engine::register_trigger", "data": {"trigger_type": "log", "function_id": "api::open"}},
    ],
)
async def test_a_job_is_judged_as_what_will_run(world: SessionWorld, job: dict[str, Any]) -> None:
    me = world.session("me")
    answer = await world.call(me, "engine::queue::enqueue", {"queue": "q", "messageReceiptId": "m", **job})
    assert answer["error"]["code"] == "FORBIDDEN"
    assert calls_of(world, "private", "api::open") == []
    assert calls_of(world, "shop", "db::secret") == []


async def test_an_option_of_an_action_has_no_say_about_what_runs(world: SessionWorld) -> None:
    me = world.session("me")
    options = {"function_id": "db::secret", "namespace": "private", "data": {"b": 2}}
    await world.call(me, "api::open", {"a": 1}, action={"type": "enqueue", "queue": "q", **options})
    assert calls_of(world, "shop", "db::secret") == []
    assert calls_of(world, "private", "api::open") == []
    (call,) = calls_of(world, "shop", "api::open")
    assert call["data"]["a"] == 1


async def test_a_function_of_the_engine_is_called_and_never_enqueued(world: SessionWorld) -> None:
    me = world.session("me")
    payload = {"trigger_type": "cron", "function_id": "api::open"}
    answer = await world.call(me, "engine::register_trigger", payload, action={"type": "enqueue", "queue": "q"})
    assert answer["error"]["code"] == "FORBIDDEN"
    answer = await world.call(me, "api::open", {}, action={"type": "enqueue", "queue": "q"})
    assert "result" in answer


async def test_a_middleware_stands_between_a_trigger_and_its_function(middleware_world: SessionWorld) -> None:
    world = middleware_world
    me = world.session("me")
    await world.say(me, BIND | {"metadata": {"m": 1}, "config": {"condition_function_id": "api::open", "at": "noon"}})
    bound = world.bound["cron"]["t"]
    assert bound["function_id"] == bound["config"]["condition_function_id"] != "api::open"
    assert bound["config"]["at"] == "noon"
    world.tick(world.cron)
    await world.settle()
    assert calls_of(world, "shop", "api::open") == []
    (asked,) = calls_of(world, "shop", "gate::middleware")
    assert asked["data"] == {
        "function_id": "api::open",
        "payload": {"event": "cron"},
        "action": None,
        "context": {},
        "namespace": "default",
    }
    assert asked["metadata"] == {"m": 1}
    # Lists show what the session bound; the stand-in is gone with the binding.
    rows = (await world.call(me, "engine::registered-triggers::list"))["result"]["registered_triggers"]
    assert [row["function_id"] for row in rows] == ["api::open"]
    await world.say(me, {"type": "unregistertrigger", "id": "t"})
    me.on_closed()
    assert world.router.registry.find("default", bound["function_id"]) is None


async def test_nobody_speaks_for_another_session_through_a_stand_in_of_the_middleware(
    middleware_world: SessionWorld,
) -> None:
    world = middleware_world
    me, other = world.session("me"), world.session("other")
    await world.say(me, BIND)
    other.rights.permissions = type(other.rights.permissions)(
        Rules(expose_functions=(Filter(match="*"),)), AuthResult()
    )
    answer = await world.call(other, world.bound["cron"]["t"]["function_id"])
    assert answer["error"]["code"] == "FORBIDDEN"


async def test_without_the_right_to_call_it_a_middleware_is_not_asked_for_a_bound_function(
    middleware_world: SessionWorld,
) -> None:
    world = middleware_world
    me = world.session("me")
    await world.say(me, BIND)
    me.rights.permissions = type(me.rights.permissions)(Rules(), AuthResult())
    world.tick(world.cron)
    await world.settle()
    assert calls_of(world, "shop", "gate::middleware") == []


async def test_a_binding_ends_when_its_function_is_no_longer_exposed(world: SessionWorld) -> None:
    me = world.session("me")
    await world.say(me, BIND | {"function_id": "public::f"})
    assert "t" in world.bound["cron"]
    world.register(world.shop, "public::f", metadata={"public": False})
    await world.settle()
    assert "t" not in world.bound["cron"]
    told = [json.loads(line) for line in me._connection.lines]  # type: ignore[attr-defined]
    assert [each["error"]["code"] for each in told if each["type"] == "triggerregistrationresult"] == ["FORBIDDEN"]


async def test_a_durable_binding_has_the_rights_of_the_session_that_made_it(world: SessionWorld) -> None:
    me = world.session("me")
    await world.say(
        me,
        {
            "type": "invokefunction",
            "function_id": "engine::register_trigger",
            "data": {"trigger_type": "cron", "function_id": "public::f", "metadata": {"iii.job": 1, "own": 1}},
        },
    )
    (bound,) = [each for each in world.bound["cron"].values() if each["function_id"] == "public::f"]
    assert bound["metadata"] == {"own": 1}
    me.on_closed()
    world.register(world.shop, "public::f", metadata={"public": False})
    assert bound["id"] not in world.bound["cron"]


async def test_a_trigger_that_is_registered_by_a_call_is_put_to_the_hook_too() -> None:
    """And its function gets the session's prefix, as that of any other trigger."""
    hook = Rules(
        auth_function_id="gate::auth",
        on_trigger_registration_function_id="gate::hook",
        expose_functions=(*RULES.expose_functions, Filter(match="mine::*")),
    )
    world = SessionWorld(rules=hook)
    asked: list[dict[str, Any]] = []
    answers: list[Any] = [{"config": {"at": "noon"}}, None]

    def answer(peer: Peer, call: dict[str, Any]) -> None:
        asked.append(call["data"])
        world.send(peer, "invocationresult", invocation_id=call["invocation_id"], result=answers.pop(0))

    world.handlers["gate::hook"] = answer
    world.start("hooks", "gate::hook")
    me = world.session("me", AuthResult(function_registration_prefix="mine"))
    trigger = {"trigger_type": "cron", "function_id": "f", "config": {"at": "night"}}
    await world.say(me, {"type": "invokefunction", "function_id": "engine::register_trigger", "data": trigger})
    (bound,) = [each for each in world.bound["cron"].values() if each["id"] != "nightly"]
    assert (bound["function_id"], bound["config"]) == ("mine::f", {"at": "noon"})
    assert (asked[0]["function_id"], asked[0]["config"]) == ("f", {"at": "night"})
    denied = await world.call(me, "engine::register_trigger", trigger)
    assert denied["error"] == {"code": "FORBIDDEN", "message": "the listener's hook denies it"}
    world.close()


async def test_what_a_session_says_of_itself_is_kept_within_bounds(world: SessionWorld) -> None:
    me = world.session()
    about = {"name": "me" * 1000, "version": "1" * 1000, "isolation": ["x"] * 1000, "more": "x" * 1000, "pid": 1}
    await world.call(me, "engine::workers::register", about)
    assert me.peer.info == {"version": "1" * 256}
    assert len(me.peer.name) == 280
    assert me.peer.pid is None
    error = (await world.call(world.session(), "engine::workers::register", {"namespace": "n" * 257}))["error"]
    assert error["code"] == "INVALID_NAMESPACE"


# Bindings of others


@pytest.mark.parametrize("function", ["engine::unregister_trigger", "unregistertrigger", "registertrigger"])
async def test_an_id_is_no_authority_over_a_binding(world: SessionWorld, function: str) -> None:
    me = world.session("me")
    if function == "engine::unregister_trigger":
        assert (await world.call(me, function, {"id": "nightly"}))["error"]["code"] == "FORBIDDEN"
    else:
        await world.say(me, BIND | {"type": function, "id": "nightly"})
    assert world.bound["cron"]["nightly"]["function_id"] == "db::secret"


async def test_the_project_takes_the_id_of_a_sessions_binding(world: SessionWorld) -> None:
    me = world.session("me")
    await world.say(me, BIND)
    world.send(world.shop, **BIND | {"function_id": "db::secret"})
    assert world.bound["cron"]["t"]["function_id"] == "db::secret"


async def test_a_session_that_provides_a_type_hears_of_no_function_it_may_not_call(world: SessionWorld) -> None:
    me = world.session("me")
    for id, function in (("a", "api::open"), ("b", "db::secret")):
        fields = {"trigger_type": "mine", "function_id": function, "metadata": {"token": SECRET}, "config": {"n": id}}
        world.send(world.shop, "registertrigger", id=id, **fields)
    told = await world.say(
        me, {"type": "registertriggertype", "id": "mine"}, BIND | {"trigger_type": "mine", "metadata": 1}
    )
    bindings = [message for message in told if message["type"] == "registertrigger"]
    assert [(each["id"], each.get("metadata")) for each in bindings] == [("a", None), ("t", 1)]


# What is heard


@pytest.mark.parametrize(
    "trigger_type",
    [
        *("engine::functions-available", "engine::workers-available", "engine::telemetry", "log", "trace", "state"),
        *("stream", "stream:join", "stream:leave", "subscribe", "durable:subscriber", "queue"),
    ],
)
async def test_a_session_is_not_told_what_the_project_does(world: SessionWorld, trigger_type: str) -> None:
    me = world.session("me")
    told = await world.say(me, BIND | {"trigger_type": trigger_type})
    assert told[0]["error"]["code"] == "FORBIDDEN"
    assert "allowed_trigger_types" in told[0]["error"]["message"]
    assert world.router.bindings.find("t") is None


async def test_what_functions_there_are_is_told_as_far_as_they_may_be_called(world: SessionWorld) -> None:
    granted = AuthResult(allowed_trigger_types=["engine::functions-available"])
    me = world.session("me", granted)
    await world.say(me, BIND | {"trigger_type": "engine::functions-available"})
    world.register(world.shop, "api::more", "db::more")
    world.pump.turn()
    # The engine collects changes for a twentieth of a second; what was there before may have its own event.
    while not (calls := calls_of(world, "shop", "api::open")) or "api::more" not in calls[-1]["data"]["added"]:
        await asyncio.sleep(0.01)
    event = calls[-1]["data"]
    heard = {row["function_id"] for row in event["functions"]} | set(event["added"])
    assert not heard & {"db::more", "db::secret", "vault::key"}


async def test_lists_show_a_session_its_own(world: SessionWorld) -> None:
    me = world.session("me")
    await world.say(me, BIND, {"type": "registertriggertype", "id": "mine"})
    text = json.dumps(
        [
            (await world.call(me, f"engine::{name}", payload)).get("result")
            for name, payload in (
                ("triggers::list", {"include_internal": True}),
                ("triggers::info", {"id": "state"}),
                ("registered-triggers::list", {}),
                ("registered-triggers::info", {"id": "nightly"}),
                ("workers::list", {}),
                ("workers::info", {"name": "private"}),
                ("functions::list", {"include_internal": True}),
                ("functions::info", {"function_id": "api::open"}),
            )
        ]
    )
    for hidden in (SECRET, "nightly", "vault::key", "db::secret", "private", "state::set", "stopped::f"):
        assert hidden not in text, hidden
    assert "api::open" in text
    assert '"pid": null' in text


async def test_an_error_of_the_engine_tells_a_session_nothing_about_a_worker(world: SessionWorld) -> None:
    me = world.session("me")
    world.shop.flush = lambda: None  # it answers nothing more
    message = {"type": "invokefunction", "function_id": "api::open", "invocation_id": "i"}
    await world.say(me, message)
    world.shop.take_outbox()
    world.router.peer_table.detach(world.shop, {"stderr": ["password=1234"], "words": "killed by SIGKILL", "signal": 9})
    world.pump.turn()
    (answer,) = (json.loads(line) for line in me._connection.lines)  # type: ignore[attr-defined]
    assert answer["error"] == {
        "code": "invocation_stopped",
        "message": "the worker stopped while it ran this call",
        "details": {"started": True},
    }


async def test_a_missing_function_brings_up_no_names(world: SessionWorld) -> None:
    me = world.session("me")
    world.register(world.private, "api::opem")
    error = (await world.call(me, "api::opem"))["error"]
    assert error == {"code": "function_not_found", "message": "Function api::opem not found in namespace default"}


# Names without end


@pytest.mark.parametrize("name", ["a" * 257, "a\0b", "a\x1b[31m", "a\nb"])
async def test_a_name_that_is_too_long_or_holds_control_characters_is_refused(world: SessionWorld, name: str) -> None:
    me = world.session("me")
    error = (await world.call(me, name))["error"]
    assert error["code"] == "invalid_message"
    assert "function_id h" in error["message"]
    assert (await world.call(me, "api::open", namespace=name))["error"]["code"] == "invalid_message"
    told = await world.say(me, {"type": "registerfunction", "id": name}, BIND | {"id": name})
    assert [each["type"] for each in told] == ["registrationrejected", "triggerregistrationresult"]
    for field in ("id", "trigger_type", "trigger_namespace"):
        world.send(world.shop, **BIND | {field: name})
    answers = [each for each in world.got["shop"] if each["type"] == "triggerregistrationresult"]
    assert [each["error"]["code"] for each in answers] == ["invalid_message"] * 3


async def test_a_session_cannot_fill_the_log_with_its_refusals(world: SessionWorld) -> None:
    me = world.session("me")
    await world.say(me, *[{"type": "registerfunction", "id": "engine::x"}] * 100)
    assert len(world.notices) == 20
    assert world.router.calls.counters["dropped_by_rules"] == 100


# Rules that change


async def test_rules_that_change_hold_for_what_is_open_and_bound(world: SessionWorld) -> None:
    me = world.session("me")
    await world.say(me, BIND)
    assert (await world.call(me, "api::open"))["result"] == "fine"
    other = Rules(auth_function_id="gate::auth", expose_functions=(Filter(match="other::*"),))
    me.apply(AuthPolicy(world.policy.engine_client, other))
    world.router.registrations.judge_sessions()
    world.pump.turn()
    assert (await world.call(me, "api::open"))["error"]["code"] == "FORBIDDEN"
    assert "t" not in world.bound["cron"]


async def test_who_came_in_by_another_auth_function_has_to_come_again(world: SessionWorld) -> None:
    me = world.session("me")
    me.apply(AuthPolicy(world.policy.engine_client, Rules(auth_function_id="gate::stricter")))
    assert me._connection.closed_with == RULES_CHANGED  # type: ignore[attr-defined]
    me.apply(AuthPolicy(world.policy.engine_client, RULES))
