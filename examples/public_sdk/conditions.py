"""Conditions: a function that is asked before the event is delivered. Only a plain `false` stops it."""

from iii import InitOptions, InvocationError, register_worker
from iii.trigger import TriggerConfig, TriggerHandler

worker = register_worker(options=InitOptions(worker_name="conditions"))


class Sale(TriggerHandler):
    """Fires for every sale."""

    def __init__(self) -> None:
        self.bindings: dict[str, TriggerConfig] = {}

    async def register_trigger(self, config: TriggerConfig) -> None:
        """Remember a binding."""
        self.bindings[config.id] = config

    async def unregister_trigger(self, config: TriggerConfig) -> None:
        """Forget it."""
        self.bindings.pop(config.id, None)


sale = Sale()


async def is_wanted(binding: TriggerConfig, data: dict) -> bool:
    """Ask the binding's condition with the same payload; one that fails stops the event too."""
    condition = binding.config.get("condition_function_id")
    if condition is None:
        return True
    try:
        return await worker.trigger_async({"function_id": condition, "payload": data}) is not False
    except InvocationError:
        return False


async def sell(data: dict) -> list:
    """Fire for one sale; return the names of the bindings that got it."""
    told = [binding for binding in list(sale.bindings.values()) if await is_wanted(binding, data)]
    for binding in told:
        await worker.trigger_async({"function_id": binding.function_id, "payload": data})
    return [binding.config["name"] for binding in told]


def is_large(data: dict) -> bool:
    """Tell whether somebody spent much."""
    return data["amount"] > 100


worker.register_function("conditions::sell", sell)
worker.register_function("conditions::celebrate", lambda _: None)
worker.register_function("conditions::is_large", is_large)
worker.register_function("conditions::says_nothing", lambda _: None)
worker.register_function("conditions::says_zero", lambda _: 0)
worker.register_function("conditions::breaks", lambda _: 1 / 0)
worker.register_trigger_type({"id": "sale", "description": "Something was sold"}, sale)
for name in ("is_large", "says_nothing", "says_zero", "breaks", "is_missing"):
    config = {"name": name, "condition_function_id": f"conditions::{name}"}
    worker.register_trigger({"type": "sale", "function_id": "conditions::celebrate", "config": config})
worker.register_trigger({"type": "sale", "function_id": "conditions::celebrate", "config": {"name": "always"}})
