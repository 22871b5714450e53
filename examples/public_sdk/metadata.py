"""Metadata: what travels beside the payload of a call, or of every event of a binding."""

from typing import Any

from iii import InitOptions, register_worker
from iii.trigger import TriggerConfig, TriggerHandler

worker = register_worker(options=InitOptions(worker_name="metadata"))


def second(data: dict, metadata: Any = None) -> list:
    """Take the sidecar as the second argument."""
    return [data, metadata]


async def keyword(data: dict, *, metadata: Any = None) -> list:
    """Take the sidecar by name."""
    return [data, metadata]


def without(data: dict) -> dict:
    """Take no sidecar."""
    return data


def relay(data: dict) -> Any:
    """Call a function with a sidecar, or without."""
    request = {"function_id": data["function_id"], "payload": {"n": 1}}
    if "metadata" in data:
        request["metadata"] = data["metadata"]
    return worker.trigger(request)


class Tick(TriggerHandler):
    """Fires when `metadata::tick` is called."""

    def __init__(self) -> None:
        self.bindings: dict[str, TriggerConfig] = {}

    async def register_trigger(self, config: TriggerConfig) -> None:
        """Remember a binding."""
        self.bindings[config.id] = config

    async def unregister_trigger(self, config: TriggerConfig) -> None:
        """Forget it."""
        self.bindings.pop(config.id, None)


tick = Tick()


async def fire(data: dict) -> list:
    """Fire every binding with its own metadata."""
    return [
        await worker.trigger_async({"function_id": binding.function_id, "payload": data, "metadata": binding.metadata})
        for binding in list(tick.bindings.values())
    ]


for handler in (second, keyword, without, relay, fire):
    worker.register_function(f"metadata::{handler.__name__}", handler)
worker.register_trigger_type({"id": "metadata-tick", "description": "Fires when told to"}, tick)
bound = {"type": "metadata-tick", "function_id": "metadata::second", "config": {}}
worker.register_trigger({**bound, "metadata": {"team": "a"}})
worker.register_trigger(bound)
