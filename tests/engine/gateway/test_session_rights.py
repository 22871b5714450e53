"""What a session may do, row by row: every message and entrance, for every standing of the name that it names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import Raw

from iii.engine.security.rights import ENTRANCES, TABLE, Standing, Verdict
from iii.protocol import messages as m
from iii.protocol.codec import decode, encode
from tests.support.session_world import SessionWorld

OWN, FREE, SESSION, PROJECT, ENGINE = Standing

# For each kind of thing, a name of each standing. A call, an offer and a connection of the engine's own do not exist.
NAMES: dict[str, dict[Standing, str]] = {
    "function": {
        OWN: "mine::f",
        FREE: "new::f",
        SESSION: "other::f",
        PROJECT: "db::secret",
        ENGINE: "engine::queue::list_topics",
    },
    "trigger type": {OWN: "mine", FREE: "new", SESSION: "other", PROJECT: "beep", ENGINE: "durable:subscriber"},
    "binding": {OWN: "my-binding", FREE: "new", SESSION: "others-binding", PROJECT: "nightly"},
    "observed function": {
        OWN: "mine::f",
        FREE: "new::f",
        SESSION: "other::f",
        PROJECT: "db::secret",
        ENGINE: "engine::queue::list_topics",
    },
    "observer": {OWN: "my-observer", FREE: "new", SESSION: "others-observer", PROJECT: "audit"},
    "action": {FREE: "new", PROJECT: "compensate"},
    "call": {OWN: "mine", FREE: "new", SESSION: "others", PROJECT: "projects"},
    "offer": {OWN: "for-me", FREE: "new", SESSION: "for-other", PROJECT: "nightly"},
    "connection": {OWN: "me", FREE: "new", SESSION: "other", PROJECT: "shop"},
    "worker": {OWN: "me", FREE: "new", SESSION: "other", PROJECT: "shop"},
    "namespace": {FREE: "elsewhere"},
    "nothing": {FREE: ""},
}
# Further names of the project: of a worker that is stopped, of one that never registered, in another namespace.
ALSO_PROJECT = {
    "function": ("stopped::f", "ghost::anything", "gate::middleware"),
    "trigger type": ("old-beep",),
    "worker": ("stopped", "ghost"),
}


class Scene:
    """A world with a session `me` and another one, each with one of everything; both let in by the same rules."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.runner.run(self._open())

    async def _open(self) -> None:
        self.world = world = SessionWorld()
        world.register(world.shop, "api::carry")
        world.send(world.shop, "registeraction", id="compensate", function_id="api::carry")
        self.me, self.other = world.session("me"), world.session("other")
        for session, name in ((self.me, "mine"), (self.other, "other")):
            binding: dict[str, Any] = {
                "type": "registertrigger",
                "trigger_type": "cron",
                "function_id": "api::open",
                "config": {},
            }
            await world.say(
                session,
                {"type": "registerfunction", "id": f"{name}::f"},
                {"type": "registertriggertype", "id": name},
                binding | {"id": {"mine": "my-binding", "other": "others-binding"}[name]},
            )
            offered = {"mine": "for-me", "other": "for-other"}[name]
            world.send(world.shop, **binding | {"id": offered, "trigger_type": name})
            # A call that this session runs, and one that it waits for (see `id_of_call`).
            world.send(world.shop, "invokefunction", function_id=f"{name}::f", invocation_id=f"run-by-{name}")
            observed = {"source": {"function_id": f"{name}::f"}, "target": {"function_id": "api::open"}}
            observer = {"mine": "my-observer", "other": "others-observer"}[name]
            await world.say(session, {"type": "observe", "id": observer, **observed})
        audited = {"source": {"function_id": "db::secret"}, "target": {"function_id": "api::open"}}
        world.send(world.shop, "observe", id="audit", **audited)
        call = {"type": "invokefunction", "function_id": "other::f", "invocation_id": "asked-by-project"}
        world.send(world.shop, **call)
        # Nobody of these answers, so that the calls stay.
        world.shop.flush = lambda: None
        for session, name in ((self.me, "mine"), (self.other, "other")):
            call = {"type": "invokefunction", "function_id": "api::open", "invocation_id": f"asked-by-{name}"}
            await world.say(session, call)

    def id_of_call(self, kind: type[m.Message], standing: Standing) -> str:
        as_caller = kind in (m.Cancel, m.ItemsTaken)
        names = {OWN: "asked-by-mine", SESSION: "asked-by-other", PROJECT: "asked-by-project", FREE: "new"}
        if not as_caller:
            names |= {OWN: "run-by-mine", SESSION: "run-by-other", PROJECT: "asked-by-mine"}
        return names[standing]

    def close(self) -> None:
        async def close() -> None:
            self.world.close()

        self.runner.run(close())
        self.runner.close()


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.close()


# What messages need besides the name that is tried: nothing in it is another's.
FIELDS: dict[str, Any] = {
    **{"id": "new", "invocation_id": "new", "count": 1, "function_id": "api::open", "trigger_type": "mine"},
    **{"previous_worker_id": "x", "deadline_ms": 1.0, "worker_id": "x", "code": "x", "owner_worker_id": "x"},
    **{"source": {"function_id": "mine::f"}, "target": {"function_id": "api::open"}, "state": "active"},
    **{"revision": 1, "observer": {}, "namespace": "default"},
    **{"channel_id": "x", "access_key": "x", "direction": "x", "error": {}},
}
# Where a message has the name of a thing, if not in its `id`.
PLACES: dict[tuple[type[m.Message], str], str] = {
    (m.InvokeFunction, "function"): "function_id",
    (m.RegisterTrigger, "function"): "function_id",
    (m.RegisterTrigger, "trigger type"): "trigger_type",
    (m.RegisterTrigger, "namespace"): "trigger_namespace",
    (m.RegisterTriggerType, "namespace"): "namespace",
    (m.Reattach, "connection"): "previous_worker_id",
}


def message_for(scene: Scene, kind: type[m.Message], thing: str, name: str, standing: Standing) -> m.Message:
    """Return a message of this kind that names the thing, and otherwise only what a session may name."""
    fields = {name: value for name, value in FIELDS.items() if name in kind.__struct_fields__}
    fields["type"] = kind.__name__.lower()
    if kind in (m.InvocationResult, m.InvocationItem):
        fields["error"] = None
    if thing == "call":
        fields["invocation_id"] = scene.id_of_call(kind, standing)
    elif thing == "connection":
        peers = {"me": scene.me.peer.id, "other": scene.other.peer.id, "shop": scene.world.shop.id}
        fields["previous_worker_id"] = peers.get(name, name)
    elif kind is m.Observe and thing != "observer":
        fields["source" if thing == "observed function" else "target"] = {"function_id": name}
    elif thing != "nothing":
        fields[PLACES.get((kind, thing), "id")] = name
    return decode(json.dumps(fields).encode())  # type: ignore[no-any-return]


ROWS = [
    (kind, row, standing, name)
    for kind, rows in TABLE.items()
    for row in rows
    for standing, first in NAMES[row.thing].items()
    for name in (first, *(ALSO_PROJECT.get(row.thing, ()) if standing is PROJECT else ()))
]
ENTRANCE_ROWS = [
    (entrance, row, standing, name)
    for entrance, rows in ENTRANCES.items()
    for row in rows
    for standing, first in NAMES[row.thing].items()
    for name in (first, *(ALSO_PROJECT.get(row.thing, ()) if standing is PROJECT else ()))
]


def test_every_message_of_the_protocol_has_its_rows() -> None:
    messages = {kind for kind in vars(m).values() if isinstance(kind, type) and issubclass(kind, m.Message)}
    assert messages - {m.Message} == TABLE.keys()
    print(f"{sum(map(len, TABLE.values()))} rows of {len(TABLE)} messages, ")
    print(f"{sum(map(len, ENTRANCES.values()))} of {len(ENTRANCES)} entrances; {len(ROWS) + len(ENTRANCE_ROWS)} cases")


def test_what_is_another_ones_is_denied_but_where_the_rules_have_a_say() -> None:
    """The whole list: a call goes where the rules say, whoever provides it; so do bindings; sessions stand by."""
    lenient = {
        (name, row.thing)
        for name, rows in [*((kind.__name__, rows) for kind, rows in TABLE.items()), *ENTRANCES.items()]
        for row in rows
        if row.thing not in ("nothing", "namespace") and {row.session, row.project, row.engine} != {Verdict.DENY}
    }
    assert lenient == {
        ("InvokeFunction", "function"),
        ("Observe", "function"),
        ("RegisterFunction", "function"),
        ("RegisterTrigger", "function"),
        ("RegisterTrigger", "trigger type"),
        ("Reattach", "connection"),
        ("engine::register_trigger", "function"),
        ("engine::register_trigger", "trigger type"),
        ("engine::workers::register", "worker"),
    }


def test_every_function_of_the_engine_has_its_rows(scene: Scene) -> None:
    served = {function.id for function in scene.world.builtins.peer.functions}
    # Served by the engine itself, or taken from another part of it.
    elsewhere = {"engine::cluster::info", "engine::config::list", "engine::connections::check", "engine::health"}
    assert served | elsewhere == ENTRANCES.keys()


def is_allowed_by_rules(kind: object, thing: str, name: str) -> bool:
    """What the rules of the world say: `api::*` and what is public may be called, and anything free registered."""
    if thing == "function":
        if kind in (m.RegisterFunction, m.UnregisterFunction):
            return True
        return name.startswith("api::")
    if thing == "trigger type":
        return kind is m.RegisterTriggerType or name not in ("durable:subscriber",)
    return True


@pytest.mark.parametrize(("kind", "row", "standing", "name"), ROWS)
def test_a_session_may_send_what_the_table_says(
    scene: Scene, kind: type[m.Message], row: Any, standing: Standing, name: str
) -> None:
    message = message_for(scene, kind, row.thing, name, standing)
    verdict = row.verdict(standing)
    is_allowed = verdict is Verdict.ALLOW or (verdict is Verdict.RULES and is_allowed_by_rules(kind, row.thing, name))
    why = scene.me.rights.refusal(message)
    assert (why is None) is is_allowed, why
    assert encode(message)


@pytest.mark.parametrize(("entrance", "row", "standing", "name"), ENTRANCE_ROWS)
def test_and_so_it_may_through_the_engines_functions(
    scene: Scene, entrance: str, row: Any, standing: Standing, name: str
) -> None:
    payload: dict[str, Any] = {"function_id": "api::open", "trigger_type": "mine", "name": "me"}
    keys = {"function": "function_id", "trigger type": "trigger_type", "worker": "name", "binding": "id"}
    if row.thing in keys:
        payload[keys[row.thing]] = name
    call = m.InvokeFunction(entrance, data=Raw(json.dumps(payload).encode()))
    verdict = row.verdict(standing)
    is_allowed = verdict is Verdict.ALLOW or (
        verdict is Verdict.RULES and is_allowed_by_rules(entrance, row.thing, name)
    )
    # What the world's rules do not expose is forbidden in any case.
    is_exposed = scene.me.rights.may_invoke("default", entrance)
    assert (scene.me.rights.refusal(call) is None) is (is_allowed and is_exposed)
