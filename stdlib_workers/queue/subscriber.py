"""The trigger type `durable:subscriber`: every function bound to a topic gets its own durable copy of each message."""

from __future__ import annotations

import orjson

from iii import TriggerConfig, TriggerHandler
from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.catalog import topic_name
from stdlib_workers.queue.model import Queue
from stdlib_workers.queue.options import parse_subscriber


class Subscribers(TriggerHandler):
    """The provider of the trigger type."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def register_trigger(self, config: TriggerConfig) -> None:
        """Start delivering. ValueError without a topic."""
        topic, queue_config = parse_subscriber(config.config if isinstance(config.config, dict) else {})
        queue = Queue(
            id=0,
            name=topic_name(topic, config.namespace, config.function_id),
            config=queue_config,
            topic=topic,
            namespace=config.namespace,
            function_id=config.function_id,
            metadata=None if config.metadata is None else orjson.dumps(config.metadata),
        )
        await self._broker.bind(queue, config.id)

    async def unregister_trigger(self, config: TriggerConfig) -> None:
        """Stop delivering; what is published meanwhile is kept."""
        self._broker.unbind(config.id)
