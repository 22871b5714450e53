"""Triggers: a worker provides a kind of event, functions are bound to it, a binding is refused, another taken back."""

from iii import InitOptions, register_worker
from iii.trigger import TriggerConfig, TriggerHandler

worker = register_worker(options=InitOptions(worker_name="triggers"))


class Doorbell(TriggerHandler):
    """Rings every binding of one house."""

    def __init__(self) -> None:
        self.bindings: dict[str, TriggerConfig] = {}

    async def register_trigger(self, config: TriggerConfig) -> None:
        """Take a binding that says which house it is for."""
        if "house" not in config.config:
            raise ValueError("which house?")
        self.bindings[config.id] = config

    async def unregister_trigger(self, config: TriggerConfig) -> None:
        """Forget it; only the id is known here."""
        self.bindings.pop(config.id, None)


doorbell = Doorbell()


async def ring(data: dict) -> list:
    """Ring at a house; return what was answered, in the order of the bindings."""
    wanted = [binding for binding in doorbell.bindings.values() if binding.config["house"] == data["house"]]
    return [
        await worker.trigger_async({"function_id": binding.function_id, "payload": {"by": data["by"]}})
        for binding in wanted
    ]


def open_door(data: dict) -> str:
    """Answer the bell."""
    return f"come in, {data['by']}"


worker.register_function("triggers::ring", ring)
worker.register_function("triggers::open_door", open_door)
worker.register_function("triggers::bark", lambda _: "woof")

# Before the type is there: bindings wait for their provider.
first = worker.register_trigger({"type": "doorbell", "function_id": "triggers::open_door", "config": {"house": 1}})
worker.register_trigger({"type": "doorbell", "function_id": "triggers::bark", "config": {"house": 1}})
worker.register_trigger({"type": "doorbell", "function_id": "triggers::bark", "config": {"garden": 1}})
worker.register_trigger_type({"id": "doorbell", "description": "Somebody is at the door"}, doorbell)

worker.register_function("triggers::move_out", lambda _: first.unregister())
worker.register_function("triggers::bound", lambda _: len(doorbell.bindings))
