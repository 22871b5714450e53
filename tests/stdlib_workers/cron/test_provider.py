"""The trigger type `cron` without its process: what a tick calls, what its condition decides, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.cron.__main__ import RUN_TIMEOUT_MS, Provider
from stdlib_workers.cron.job_store import SCHEMA, SqliteJobStore
from stdlib_workers.cron.scheduler import Time
from stdlib_workers.storage import Store
from tests.support.stand_ins import Callee, binding, until

NEVER = "0 0 0 1 1 ? 2100"


@asynccontextmanager
async def provided(worker: Callee, **config: Any) -> AsyncIterator[Provider]:
    """A provider with the job `report`, which comes when a test runs it."""
    store = Store(None, SCHEMA)
    provider = Provider(worker, SqliteJobStore(store), Time())  # type: ignore[arg-type]
    given = {"expression": NEVER, "name": "report", "description": "ignored", **config}
    await provider.register_trigger(binding("w::run", given, "t1", metadata={"m": 1}, namespace="n"))
    await until(lambda: provider.scheduler.jobs)
    try:
        yield provider
    finally:
        tasks = [scheduled.task for scheduled in provider.scheduler.jobs.values() if scheduled.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        store.close()


async def test_a_tick_calls_the_function_with_its_metadata_in_its_namespace() -> None:
    worker = Callee(w__run=lambda _: None)
    async with provided(worker) as provider:
        payload = await provider.scheduler.run_now("report")
    [request] = worker.requests
    trace = request.pop("trace")
    assert trace["traceparent"].startswith("00-")
    assert request == {
        "function_id": "w::run",
        "payload": payload,
        "metadata": {"m": 1},
        "namespace": "n",
        "timeout_ms": RUN_TIMEOUT_MS,
    }
    assert payload.keys() == {"trigger", "job_id", "scheduled_time", "actual_time", "tick_id", "missed"}
    assert payload["job_id"] == "t1"


@pytest.mark.parametrize(
    ("verdict", "runs"), [(False, False), (None, True), (0, True), ("", True), ({}, True), (True, True)]
)
async def test_only_an_explicit_false_of_the_condition_blocks(verdict: Any, runs: bool) -> None:
    worker = Callee(w__run=lambda _: None, w__ask=lambda _: verdict)
    async with provided(worker, condition_function_id="w::ask") as provider:
        payload = await provider.scheduler.run_now("report")
    assert worker.payloads("w::ask") == [payload]
    assert worker.payloads("w::run") == ([payload] if runs else [])
    assert {request.get("namespace") for request in worker.requests} == {"n"}


async def test_a_condition_that_fails_skips_the_run() -> None:
    worker = Callee(w__run=lambda _: None)
    async with provided(worker, condition_function_id="w::missing") as provider:
        with pytest.raises(InvocationError, match="function_not_found"):
            await provider.scheduler.run_now("report")
    assert worker.payloads("w::run") == []


async def test_a_trigger_that_is_gone_takes_its_job_along_and_an_unknown_one_nothing() -> None:
    async with provided(Callee()) as provider:
        await provider.unregister_trigger(binding(id="unknown"))
        await provider.unregister_trigger(binding(id="t1"))
        await until(lambda: not provider.scheduler.jobs)


@pytest.mark.parametrize("config", [None, {}, {"expression": ""}, {"expression": 5}, {"expression": "* * *"}])
async def test_a_wrong_binding_starts_nothing(config: Any) -> None:
    async with provided(Callee()) as provider:
        with pytest.raises(ValueError, match=r"expression|\* \* \*"):
            await provider.register_trigger(binding("w::run", config, "t2"))
        assert list(provider.scheduler.jobs) == ["t1"]
