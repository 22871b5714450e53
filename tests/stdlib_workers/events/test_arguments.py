"""Events that become arguments, through the one place where standard workers call what is bound to their types."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.cron.__main__ import Provider
from stdlib_workers.cron.job_store import SCHEMA, SqliteJobStore
from stdlib_workers.cron.scheduler import Time
from stdlib_workers.events import Background, Bindings, KnownBindings, Outbox, Target, envelope, fire, target_from
from stdlib_workers.observability.ingest.triggers import log_subscription_from
from stdlib_workers.pubsub.broadcast import Broadcast, Subscription
from stdlib_workers.state.events import subscription_from
from stdlib_workers.state.functions import Options, State
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store
from stdlib_workers.stream.events import filter_from
from stdlib_workers.values import decode
from tests.support.stand_ins import Callee, binding, until

SOURCES = {"id": {"in": "event", "name": "data.id", "required": True}, "by": {"value": "ada"}}
CONFIG = {"payload": "arguments", "arguments": SOURCES}


@pytest.mark.parametrize(
    ("read", "config"),
    [
        (target_from, {}),
        (lambda config: subscription_from(config).target, {"scope": "s"}),
        (lambda config: filter_from(config).target, {"stream_name": "s"}),
        (lambda config: Subscription(config).target, {"topic": "t"}),
        (lambda config: log_subscription_from(config).target, {"level": "info"}),
    ],
)
async def test_every_provider_calls_with_the_arguments_and_asks_the_condition_with_the_event(
    read: Callable[[Any], Target], config: dict[str, Any]
) -> None:
    callee = Callee(w__seen=lambda _: None, w__is_wanted=lambda _: True)
    target = read(binding(config={**config, **CONFIG, "condition_function_id": "w::is_wanted"}))
    await fire(callee, target, {"data": {"id": 7}})
    assert callee.payloads("w::is_wanted") == [{"data": {"id": 7}}]
    assert callee.payloads("w::seen") == [{"id": 7, "by": "ada"}]


async def test_an_event_that_lacks_an_argument_calls_nothing_and_is_told_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    callee = Callee(w__seen=lambda _: None)
    with pytest.raises(InvocationError) as refused:
        await fire(callee, target_from(binding(config=CONFIG)), {"data": {}})
    assert refused.value.code == "invalid_payload"
    assert callee.requests == []
    told = "the event gives w::seen no arguments: event.data.id: expected a value, got nothing"
    assert capsys.readouterr().err.count(told) == 1


async def test_what_waits_on_the_disk_keeps_its_arguments() -> None:
    target = target_from(binding(config=CONFIG))
    (fields,) = decode(envelope("key", [target], {"data": {"id": 7}}))["targets"]
    callee = Callee(w__seen=lambda _: None)
    await fire(callee, Target(**fields), {"data": {"id": 7}})
    assert callee.payloads("w::seen") == [{"id": 7, "by": "ada"}]


async def test_a_write_of_the_state_gives_arguments(tmp_path: Path) -> None:
    pairs = SqliteKeyValue(Store(tmp_path / "state.db", KEY_VALUE_SCHEMA))
    callee, background = Callee(w__seen=lambda _: None), Background()
    bindings = KnownBindings("state", subscription_from, pairs.records)
    outbox = Outbox(pairs.journal, callee, background, bindings)
    outbox.start()
    await bindings.register_trigger(
        binding(config={"payload": "arguments", "arguments": {"id": {"in": "event", "name": "new_value.id"}}})
    )
    await State(pairs, Options(), bindings, outbox).set({"scope": "s", "key": "k", "value": {"id": 7}})
    await until(lambda: callee.requests)
    assert callee.payloads("w::seen") == [{"id": 7}]
    background.stop()


async def test_a_message_of_a_topic_gives_arguments() -> None:
    callee, bindings = Callee(w__seen=lambda _: None), Bindings(Subscription)
    await bindings.register_trigger(binding(config={"topic": "t", **CONFIG}))
    await Broadcast(callee, bindings).publish({"topic": "t", "data": {"data": {"id": 7}}})
    await until(lambda: callee.requests)
    assert callee.payloads("w::seen") == [{"id": 7, "by": "ada"}]


async def test_a_tick_gives_arguments_and_keeps_its_long_timeout() -> None:
    callee = Callee(w__seen=lambda _: None)
    provider = Provider(callee, SqliteJobStore(Store(None, SCHEMA)), Time())  # type: ignore[arg-type]
    sources = {"id": {"value": 7}, "at": {"in": "event", "name": "scheduled_time"}}
    config = {"expression": "@yearly", "payload": "arguments", "arguments": sources}
    await provider.register_trigger(binding(config=config, metadata={"m": 1}))
    await provider.scheduler.run_now("t1")
    [request] = callee.requests
    assert request["payload"]["id"] == 7
    assert datetime.fromisoformat(request["payload"]["at"]).tzinfo == UTC
    assert (request["timeout_ms"], request["metadata"]) == (86_400_000, {"m": 1})
    await provider.unregister_trigger(binding())
    await asyncio.sleep(0)
