"""`[workers.flow]`: open the store, register the functions and the trigger types, then make the turns."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from iii import InitOptions, Worker, register_worker
from stdlib_workers.events import TOPIC, Background, KnownBindings, Outbox, envelope
from stdlib_workers.flow.bindings import EndedSubscription, Flows, subscription_from
from stdlib_workers.flow.dispatcher import Dispatcher
from stdlib_workers.flow.ends import ended_event
from stdlib_workers.flow.functions import DECLARED, Functions, register_functions
from stdlib_workers.flow.model import Run
from stdlib_workers.flow.operations import Operations
from stdlib_workers.flow.options import Options, options_from
from stdlib_workers.flow.runs import Runs
from stdlib_workers.flow.schema import SCHEMA
from stdlib_workers.flow.transaction import Transaction
from stdlib_workers.storage import SqliteJournal, SqliteRecords, Store, look_after, open_store
from stdlib_workers.values import read_options
from stdlib_workers.values.clock import WALL_INTERVAL, Clock

RESUME = "flow::resume"
EXIT_SOFTWARE = 70  # EX_SOFTWARE of sysexits.h


class Service(NamedTuple):
    """A flow worker that is registered. `begin` takes over what the last process has left, on the handlers' loop."""

    runs: Runs
    dispatcher: Dispatcher
    begin: Callable[[], Coroutine[Any, Any, int]]


def main() -> None:
    """Serve until the engine closes the connection."""
    # The file first: a worker that is connected and does nothing counts as ready, and opening a large file takes time.
    options = read_options(options_from)
    store = open_store("flow", SCHEMA, in_memory=options.in_memory)
    worker = register_worker(options=InitOptions(worker_name="flow"))
    service = register(worker, store, options, Clock())
    service.dispatcher.on_failure = _end_process
    look_after(worker, "flow", store)
    worker.ready()
    # A call of its own brings the worker onto the loop that runs its handlers.
    recovered = worker.trigger(RESUME, {})["recovered"]
    if recovered:
        sys.stderr.write(f"{recovered} turns and calls were under way when the flow worker ended; they go on now\n")


def register(
    worker: Worker,
    store: Store,
    options: Options,
    clock: Callable[[], int],
    *,
    longest_timer: float = WALL_INTERVAL,
) -> Service:
    """Register everything. Turns begin with `begin` of what this returns. `longest_timer`: as of Dispatcher."""
    journal = SqliteJournal(store)
    ended = KnownBindings[EndedSubscription]("flow:ended", subscription_from, SqliteRecords(store))

    def announce(tx: Transaction, run: Run) -> None:
        """Put the event of a run that has ended, or is blocked, into the outbox."""
        state = run.state.name.lower()
        targets = [each.target for each in ended if each.wants(state, run.function_id)]
        if targets:
            body = envelope(run.id, targets, ended_event(run, tx.now), {"traceparent": run.traceparent})
            tx.changes.events.append(journal.add(tx.connection, TOPIC, body))

    runs = Runs(store, clock, options.limits, options.turns, announce)
    flows = Flows()
    dispatcher = Dispatcher(worker, runs, flows, clock, longest_timer)
    secret = store.run(_read_secret).result()
    operations = Operations(dispatcher, runs, flows, clock, options.park_ms, secret)
    worker.before_stop(dispatcher.finish)
    register_functions(worker, Functions(runs, dispatcher, operations))
    flows.follow(dispatcher.on_bound, dispatcher.on_unbound)
    worker.register_trigger_type(DECLARED.trigger_types["flow"], flows)
    worker.register_trigger_type(DECLARED.trigger_types["flow:ended"], ended)

    async def begin() -> int:
        background = Background(loop=asyncio.get_running_loop())
        outbox = Outbox(journal, worker, background, ended)
        outbox.start()
        ended.watch(worker, background)
        return await dispatcher.begin(outbox)

    async def resume(_: Any) -> dict[str, int]:
        """Begin, or go on with, the turns that are due; once a process."""
        return {"recovered": await begin()}

    worker.register_function(RESUME, resume, metadata={"internal": True}, **DECLARED.functions[RESUME])
    return Service(runs, dispatcher, begin)


def _end_process(error: BaseException) -> None:
    """End at once: a run whose turn nobody watches would run for ever, so another process takes over."""
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(EXIT_SOFTWARE)


def _read_secret(connection: sqlite3.Connection) -> bytes:
    return bytes(connection.execute("SELECT value FROM secrets WHERE name = 'tokens'").fetchone()[0])


if __name__ == "__main__":
    main()
