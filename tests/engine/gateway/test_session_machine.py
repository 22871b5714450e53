"""Random histories of a session against a project: nothing unexposed is called, told, taken or held.

Hypothesis plays two sessions of a listener with rules, the project's own workers, their restarts and the events of
their trigger types, over the real router, builtins and gateway. The names that sessions use are those of the project,
of the engine, of each other, and their own. Whatever they send carries a mark, so that it is known wherever it arrives.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from iii.engine.gateway.rbac_session import RbacSession
from iii.engine.security.rbac import AuthResult, is_reserved
from tests.support.session_world import FUNCTIONS, SECRET, SHOP, TYPES, SessionWorld, Socket

MARK = "marked-by-session"
# Functions that a session may never have called, by whatever way. `vault::key` is never named by one.
FORBIDDEN = {"db::secret", "vault::key", "stopped::f", "state::set", "gate::auth"}
NAMES = [
    *("api::open", "public::f", "db::secret", "stopped::f", "ghost::f", "state::set", "new::f", "mine::f", "other::f"),
    *("engine::queue::enqueue", "engine::register_trigger", "engine::workers::register", "engine::made-up"),
    *("action::enqueue", "gate::middleware", "gate::auth", "x" * 300, "nul\0"),
]
TRIGGER_TYPES = [
    *("cron", "state", "beep", "old-beep", "mine", "other", "log", "subscribe", "durable:subscriber", "nobody-has-it"),
    *("engine::functions-available", "engine::workers-available", "engine::telemetry", "new::type", "ghost::type"),
]
IDS = ["nightly", "waits", "t1", "t2", "t3"]
NAMESPACES = [None, "default", "private", "elsewhere", "", "private\n"]
INVOCATIONS = ["i1", "i2", "i3"]
BUILTINS = [
    *("engine::register_trigger", "engine::unregister_trigger", "engine::queue::enqueue", "engine::channels::create"),
    *("engine::functions::list", "engine::functions::info", "engine::triggers::list", "engine::triggers::info"),
    *("engine::registered-triggers::list", "engine::registered-triggers::info", "engine::workers::list"),
    *("engine::workers::info", "engine::workers::register", "engine::workers::stop", "engine::trigger-types::list"),
]
ACTIONS: list[Any] = [
    *(None, {"type": "void"}, {"type": "enqueue", "queue": "q"}, {"type": "compensate"}),
    {"type": "enqueue", "queue": "q", "function_id": "db::secret", "namespace": "private", "data": {"mark": MARK}},
]

# What a session may do is as likely as what it may not: most of what is forbidden takes something allowed to get there.
ids = st.one_of(st.sampled_from(["t1", "t2", "t3"]), st.sampled_from(IDS))
names = st.one_of(st.sampled_from(["api::open", "public::f", "mine::f"]), st.sampled_from(NAMES))
types = st.one_of(st.sampled_from(["cron", "mine"]), st.sampled_from(TRIGGER_TYPES))
namespaces = st.one_of(st.none(), st.none(), st.sampled_from(NAMESPACES))
metadata = st.sampled_from(
    [None, {"by": MARK}, {"by": MARK, "iii.job": {"id": "forged"}, "iii.trigger": "forged"}, {"public": True}]
)
configs: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.just({}),
    st.sampled_from(
        [
            *({}, None, {"condition_function_id": "db::secret"}, {"condition_function_id": "api::open"}),
            {"middleware_function_ids": ["api::open", "db::secret"]},
        ]
    ),
)
payloads = st.fixed_dictionaries(
    {"mark": st.just(MARK)},
    optional={
        "_caller_worker_id": st.just("forged"),
        "function_id": names,
        "id": ids,
        "trigger_type": types,
        "namespace": namespaces,
        "trigger_namespace": namespaces,
        "queue": st.just("q"),
        "messageReceiptId": st.just("m"),
        "metadata": metadata,
        "config": configs,
        "data": st.sampled_from([None, {"mark": MARK, "_caller_worker_id": "forged"}, {"function_id": "db::secret"}]),
        "name": st.sampled_from(["shop", "stopped", "ghost", "me", "other"]),
        "pid": st.integers(1, 10),
        "include_internal": st.booleans(),
    },
)


def message(type: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(type), **fields})


calls = message(
    "invokefunction",
    function_id=st.one_of(names, st.sampled_from(BUILTINS)),
    invocation_id=st.sampled_from([None, *INVOCATIONS]),
    data=payloads,
    metadata=metadata,
    namespace=namespaces,
    action=st.sampled_from(ACTIONS),
    caller=st.sampled_from([None, {"invocation_id": "asked", "function_id": "vip"}]),
)
bindings = message(
    "registertrigger",
    id=ids,
    trigger_type=types,
    function_id=names,
    config=configs,
    metadata=st.one_of(st.just({"by": MARK}), metadata),
    namespace=namespaces,
    trigger_namespace=st.one_of(st.none(), namespaces),
)
registrations = st.one_of(
    bindings,
    message("registerfunction", id=names, metadata=metadata, invocation=st.sampled_from([None, {"url": "http://x/"}])),
    message("registertriggertype", id=types, namespace=namespaces),
    message("registeraction", id=st.sampled_from(["enqueue", "new"]), function_id=names),
    message("unregisterfunction", id=names),
    message("unregistertriggertype", id=types, namespace=namespaces),
    message("unregistertrigger", id=ids),
    message("unregisteraction", id=st.sampled_from(["enqueue", "new"])),
)
answers = st.one_of(
    message("invocationresult", invocation_id=st.sampled_from([*INVOCATIONS, "asked"]), result=st.just(MARK)),
    message("invocationitem", invocation_id=st.sampled_from([*INVOCATIONS, "asked"]), item=st.just(MARK)),
    message("itemstaken", invocation_id=st.sampled_from([*INVOCATIONS, "asked"]), count=st.just(1)),
    message("cancel", invocation_id=st.sampled_from([*INVOCATIONS, "asked"])),
    message("triggerregistrationresult", id=ids, error=st.sampled_from([None, {"code": "no", "message": MARK}])),
    message("ready", files=st.just(["/etc/passwd"]), vouches=st.just(True)),
    message("stop", deadline_ms=st.just(1.0)),
    message("telemetry", spans=st.just([{"mark": MARK}])),
    message("ping"),
)


class SessionLaws(RuleBasedStateMachine):
    """One project's life, with a session that tries everything. `steps` counts those of all lives."""

    steps = 0
    reached: ClassVar[Counter[str]] = (
        Counter()
    )  # what the session was able to do, by way: else the laws hold for nothing

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.has_middleware = False

    @initialize(
        middleware=st.booleans(), granted=st.sampled_from([None, ["cron", "engine::functions-available", "mine"]])
    )
    def open(self, middleware: bool, granted: list[str] | None) -> None:
        self.has_middleware = middleware
        auth = AuthResult(allow_trigger_type_registration=True, allowed_trigger_types=granted)

        async def begin() -> None:
            self.world = SessionWorld(middleware=middleware, auth=auth)
            self.me, self.other = self.world.session("me"), self.world.session("other")
            await self.world.say(self.other, {"type": "registerfunction", "id": "other::f"})

        self.runner.run(begin())
        self.looked_at: dict[str, int] = {}

    def say(self, session: RbacSession, *messages: dict[str, Any]) -> None:
        if not session.peer.is_gone:
            self.runner.run(self.world.say(session, *messages))

    # What happens

    @rule(message=calls)
    def it_calls_again(self, message: dict[str, Any]) -> None:
        self.say(self.me, message)

    @rule(message=calls)
    def it_calls(self, message: dict[str, Any]) -> None:
        self.say(self.me, message)

    @rule(message=bindings, provider=st.sampled_from([None, "cron"]))
    def it_binds(self, message: dict[str, Any], provider: str | None) -> None:
        self.say(self.me, message)
        if provider is not None:
            self.an_event_fires(provider)

    @rule(message=registrations)
    def it_registers(self, message: dict[str, Any]) -> None:
        self.say(self.me, message)

    @rule(message=st.one_of(registrations, calls))
    def the_other_session_does(self, message: dict[str, Any]) -> None:
        self.say(self.other, message)

    @rule(message=answers)
    def it_answers_or_ends_something(self, message: dict[str, Any]) -> None:
        self.say(self.me, message)

    @precondition(lambda self: self.me.peer.is_gone or not self.me._connection.is_open)
    @rule()
    def it_comes_back(self) -> None:
        async def again() -> None:
            if not self.me.peer.is_gone:
                self.me.on_closed()
            self.world.sessions.remove(self.me)
            self.me = self.world.session("me")
            await self.world.settle()

        self.runner.run(again())

    @rule(provider=st.sampled_from(["cron", "state"]))
    def an_event(self, provider: str) -> None:
        self.an_event_fires(provider)

    def an_event_fires(self, provider: str) -> None:
        async def fire() -> None:
            self.world.tick(getattr(self.world, provider))
            await self.world.settle()

        self.runner.run(fire())

    @rule(
        function=st.sampled_from([*SHOP, "other::f", "mine::f", "new::f", "ghost::f"]),
        id=st.sampled_from(["asked", "a2"]),
    )
    def the_project_calls(self, function: str, id: str) -> None:
        async def call() -> None:
            fields = {"invocation_id": id, "data": {"order": 1}} if function in SHOP else {"data": {}}
            self.world.send(self.world.state, "invokefunction", function_id=function, **fields)
            await self.world.settle()

        self.runner.run(call())

    @rule(name=st.sampled_from(["shop", "cron"]), pauses=st.booleans())
    def a_worker_restarts(self, name: str, pauses: bool) -> None:
        """Its process dies; while it is away, or failed, the session has its chance."""

        async def restart() -> None:
            world = self.world
            world.router.peer_table.detach(getattr(world, name))
            world.bound.get(name, {}).clear()
            if pauses:
                world.router.peer_table.refuse_calls(name, {"state": "failed"})
            world.pump.turn()
            session = self.me if not self.me.peer.is_gone else self.other
            if not session.peer.is_gone:
                wanted = [{"type": "registerfunction", "id": id} for id in SHOP if id != "vault::key"]
                wanted += [{"type": "registertriggertype", "id": id} for id in ("cron", "beep")]
                await world.say(session, *wanted)
            self.names_stay_with_the_project()
            functions, types = (SHOP, ("beep",)) if name == "shop" else ((), ("cron",))
            setattr(world, name, world.start(name, *functions, types=types))
            if name == "shop":
                world.register(world.shop, "public::f", metadata={"public": True})
                for id, type_, function in (
                    ("nightly", "cron", "db::secret"),
                    ("waits", "nobody-has-it", "vault::key"),
                ):
                    fields = {"trigger_type": type_, "function_id": function, "config": {"key": SECRET}}
                    world.send(world.shop, "registertrigger", id=id, **fields, metadata={"token": SECRET})
            await world.settle()

        self.runner.run(restart())

    # The laws

    @invariant()
    def nothing_unexposed_is_called(self) -> None:
        for name in ("shop", "private", "state", "queue"):
            messages = self.world.got.get(name, [])
            for call in messages[self.looked_at.get(name, 0) :]:
                if call["type"] == "invokefunction":
                    self.look_at_call(name, call)
            self.looked_at[name] = len(messages)

    def look_at_call(self, worker: str, call: dict[str, Any]) -> None:
        function, data = call["function_id"], call.get("data")
        meta = call["metadata"] if isinstance(call.get("metadata"), dict) else {}
        is_marked = MARK in json.dumps([data, call.get("metadata")])
        if is_marked and function != "gate::middleware":
            assert function not in FORBIDDEN, call
            assert worker not in ("private", "state"), call
            assert not self.has_middleware, f"around the middleware: {call}"
            assert meta.get("iii.job", {"id": "real"}) == {"id": "real"}, call
            if function in ("api::open", "public::f"):
                is_bound = isinstance(data, dict) and "event" in data
                SessionLaws.reached["job" if "iii.job" in meta else "bound" if is_bound else "call"] += 1
        assert "forged" not in json.dumps([data, meta]), call
        assert call.get("caller") is None or "vip" not in json.dumps(call["caller"]), call

    @invariant()
    def nothing_is_told(self) -> None:
        SessionLaws.steps += 1
        for session in self.world.sessions:
            socket = session._connection
            assert isinstance(socket, Socket)
            lines, socket.lines[:] = socket.lines[:], []
            for line in lines:
                text = line.decode()
                assert SECRET not in text, text
                assert "vault::key" not in text, text
                told = json.loads(line)
                if told["type"] == "invokefunction":
                    assert told["function_id"] not in {*FUNCTIONS, "state::set"}, told
                    SessionLaws.reached["asked by the project"] += 1
                elif told["type"] == "registertrigger":
                    SessionLaws.reached["provides a type"] += 1

    @invariant()
    def names_stay_with_the_project(self) -> None:
        """Nothing of the project is taken, and nothing held that it or the engine may want."""
        router = self.world.router
        for function in router.registry:
            for provider in function.providers:
                if provider.rights is not None:
                    is_projects = function.id in FUNCTIONS and function.namespace == "default"
                    assert not is_reserved(function.id)
                    assert not is_projects, function.id
                    assert not function.id.startswith("ghost::"), function.id
        for (namespace, id), trigger_type in router.bindings.types.items():
            if trigger_type.provider.rights is not None:
                assert not is_reserved(id)
                assert id not in TYPES or namespace != "default", id
        for action in router.registry.actions.values():
            assert action.owner.rights is None
        assert self.world.are_sessions_apart()

    @invariant()
    def its_bindings_stay(self) -> None:
        router = self.world.router
        for id in ("nightly", "waits"):
            binding = router.bindings.find(id)
            assert binding is not None
            assert binding.rights is None, id
        for name, peer in (("shop", self.world.shop), ("cron", self.world.cron)):
            assert router.peer_table.peers.get(peer.id) is peer, name

    def teardown(self) -> None:
        async def close() -> None:
            if hasattr(self, "world"):
                self.world.close()

        self.runner.run(close())
        self.runner.close()


WAYS = ("call", "job", "bound", "asked by the project", "provides a type")
SOME = settings(max_examples=40, stateful_step_count=30, suppress_health_check=list(HealthCheck), print_blob=True)


def test_sessions_keep_within_their_rights() -> None:
    run_state_machine_as_test(SessionLaws, settings=SOME)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sessions_keep_within_their_rights_for_100_000_steps() -> None:
    # Without shrinking, which takes longer than all the steps.
    many = settings(SOME, max_examples=200, stateful_step_count=100, phases=[Phase.generate])
    SessionLaws.steps = 0
    while SessionLaws.steps < 100_000:
        run_state_machine_as_test(SessionLaws, settings=many)
    print(f"{SessionLaws.steps} steps within their rights; {dict(SessionLaws.reached)}")
    assert min(SessionLaws.reached[way] for way in WAYS) >= 50
