"""The queue worker: opens its file, offers its functions, and makes the attempts on the main thread's loop."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import orjson

from iii import InitOptions, Worker, register_worker
from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.clock import Clock
from stdlib_workers.queue.dispatcher import Dispatcher
from stdlib_workers.queue.functions import Functions
from stdlib_workers.queue.options import parse_project, store_in_memory
from stdlib_workers.queue.schema import SCHEMA
from stdlib_workers.queue.subscriber import Subscribers
from stdlib_workers.storage import Refusal, open_store

EXIT_CONFIG = 2
FUNCTIONS_AVAILABLE = "engine::functions-available"


def main() -> None:
    """Serve until the engine closes the connection."""
    # The file first: a worker that is connected and does nothing counts as ready, and opening a large file takes time.
    try:
        config = orjson.loads(os.environ.get("III_CONFIG") or "{}")
        configs = parse_project(config)
        in_memory = store_in_memory(config)
        store = open_store("queue", SCHEMA, project=os.environ.get("III_PROJECT", ""), in_memory=in_memory)
    except (ValueError, Refusal) as error:
        sys.stderr.write(f"queue: {error}\n")
        raise SystemExit(error.exit_code if isinstance(error, Refusal) else EXIT_CONFIG) from error
    clock = Clock()
    broker = Broker(store, os.environ.get("III_RUN_ID", ""), clock)
    recovered = broker.start(configs)
    if recovered:
        sys.stderr.write(f"{recovered} jobs were running when the queue ended; they are delivered again\n")
    asyncio.run(serve(register_worker(options=InitOptions(worker_name="queue")), broker, clock))


async def serve(worker: Worker, broker: Broker, clock: Clock) -> None:
    """Register everything, then dispatch for ever."""
    dispatcher = Dispatcher(worker, broker, clock)
    worker.before_stop(dispatcher.finish)
    Functions(broker).register(worker)
    worker.register_trigger_type(
        {"id": "durable:subscriber", "description": "A function's own durable copy of every message of a topic."},
        Subscribers(broker),
    )

    def functions_available(payload: Any) -> None:
        dispatcher.functions_added(payload.get("added") or [])

    worker.register_function("queue::on-functions-available", functions_available, metadata={"internal": True})
    worker.register_trigger({"type": FUNCTIONS_AVAILABLE, "function_id": "queue::on-functions-available", "config": {}})
    worker.ready()
    await dispatcher.run()


if __name__ == "__main__":
    main()
