"""The queue worker: opens its file, offers its functions, and makes the attempts on the main thread's loop."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping

import orjson

from iii import (
    InitOptions,
    InvocationError,
    TriggerConfig,
    TriggerHandler,
    Worker,
    register_worker,
)
from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.catalog import topic_name
from stdlib_workers.queue.dispatcher import Dispatcher
from stdlib_workers.queue.functions import DECLARED, Functions
from stdlib_workers.queue.model import Queue, QueueConfig
from stdlib_workers.queue.options import check_name, options_from, parse_config, parse_subscriber
from stdlib_workers.queue.schema import SCHEMA
from stdlib_workers.storage import EXIT_REFUSED, look_after, open_store
from stdlib_workers.values import end_worker, read_options
from stdlib_workers.values.clock import WALL_INTERVAL, Clock
from stdlib_workers.values.live_config import LiveConfig


class Subscribers(TriggerHandler):
    """The trigger type `durable:subscriber`: every function bound to a topic gets its own copy of each message."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def register_trigger(self, config: TriggerConfig) -> None:
        """Start delivering. ValueError without a topic."""
        topic, queue_config = parse_subscriber(config.config if isinstance(config.config, dict) else {})
        name = topic_name(topic, config.namespace, config.function_id)
        metadata = None if config.metadata is None else orjson.dumps(config.metadata)
        queue = Queue(0, name, queue_config, topic, config.namespace, config.function_id, metadata)
        await self._broker.bind(queue, config.id)

    async def unregister_trigger(self, config: TriggerConfig) -> None:
        """Stop delivering; what is published meanwhile is kept."""
        self._broker.scheduler.unbind(config.id)


class Declarations(TriggerHandler):
    """The trigger type `queue`: a function brings the queue of its jobs along. `configs` are those of iii.toml."""

    def __init__(self, broker: Broker, configs: Mapping[str, QueueConfig]) -> None:
        self._broker = broker
        self._configs = configs
        self._declared: dict[str, tuple[str, str, QueueConfig]] = {}  # by binding: function, queue, config

    async def register_trigger(self, config: TriggerConfig) -> None:
        """Make the queue, or change its configuration. ValueError for one that is wrong, or declared otherwise."""
        settings = dict(config.config) if isinstance(config.config, dict) else {}
        name = check_name(settings.pop("queue", None))
        queue_config = parse_config(name, settings)
        if not settings:
            existing = self._broker.queues.get(name)
            if existing is None or self._broker.is_orphaned(existing):
                await self._broker.define(name, existing.config if existing else queue_config)
            return
        if self._configs.get(name, queue_config) != queue_config:
            raise ValueError(f"queue {name} has another config in iii.toml; keep the options in one place")
        for function_id, declared, other_config in self._declared.values():
            if declared == name and function_id != config.function_id and other_config != queue_config:
                raise ValueError(f"queue {name} has other options at {function_id}; give them to one function")
        self._declared[config.id] = config.function_id, name, queue_config
        await self._broker.define(name, queue_config)

    def unregister_trigger(self, config: TriggerConfig) -> None:
        """Forget the declaration; the queue stays, with the jobs that wait in it."""
        self._declared.pop(config.id, None)


def main() -> None:
    """Serve until the engine closes the connection."""
    # The file first: a worker that is connected and does nothing counts as ready, and opening a large file takes time.
    configs, in_memory = read_options(options_from)
    store = open_store("queue", SCHEMA, in_memory=in_memory)
    clock = Clock()
    broker = Broker(store, os.environ.get("III_RUN_ID", ""), clock)
    try:
        recovered = broker.start(configs)
    except InvocationError as error:
        end_worker(f"queue: {error}; nothing was started", EXIT_REFUSED)
    if recovered:
        sys.stderr.write(f"{recovered} jobs were running when the queue ended; they are delivered again\n")
    for queue in broker.queues.values():
        if broker.is_orphaned(queue):
            text = f"the queue {queue.name} has left iii.toml and goes on working"
            sys.stderr.write(f"{text}; `iii queue delete {queue.name}` removes it with its jobs\n")
    worker = register_worker(options=InitOptions(worker_name="queue"))
    look_after(worker, "queue", store)
    asyncio.run(serve(worker, broker, clock, configs))


async def serve(
    worker: Worker,
    broker: Broker,
    clock: Callable[[], int],
    configs: Mapping[str, QueueConfig],
    *,
    longest_sleep: float = WALL_INTERVAL,
) -> None:
    """Register everything, then dispatch for ever. `longest_sleep`: as of Dispatcher."""
    dispatcher = Dispatcher(worker, broker, clock, longest_sleep=longest_sleep)
    worker.before_stop(dispatcher.finish)
    Functions(broker).register(worker)
    worker.register_trigger_type(DECLARED.trigger_types["durable:subscriber"], Subscribers(broker))
    worker.register_trigger_type(DECLARED.trigger_types["queue"], Declarations(broker, configs))
    watch = "queue::on-functions-available"
    worker.register_function(
        watch, dispatcher.on_functions_available, metadata={"internal": True}, **DECLARED.functions[watch]
    )
    worker.register_trigger({"type": "engine::functions-available", "function_id": watch, "config": {}})
    settings = LiveConfig(worker, "queue", worker.config, options_from, lambda options: broker.define_all(options[0]))
    await asyncio.to_thread(settings.start)
    worker.ready()
    await dispatcher.run()


if __name__ == "__main__":
    main()
