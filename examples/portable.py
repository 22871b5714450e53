"""Everything in the public SDK's own words: this file runs unchanged under `iii dev`, by hand with III_URL=ws://...,
and on the official `iii-sdk`.

It provides a trigger type (`mail`), binds two functions to it, and streams a result through a channel.
"""

from typing import Any

from iii import InitOptions, register_worker
from iii.helpers import create_channel_async
from iii.trigger import TriggerConfig, TriggerHandler

worker = register_worker(options=InitOptions(worker_name="portable"))


def hello(payload: dict) -> dict:
    """Greet somebody."""
    return {"message": f"Hello, {payload['name']}!"}


async def hello_twice(payload: dict) -> list:
    """Greet by calling another function, two times."""
    request = {"function_id": "portable::hello", "payload": payload}
    return [(await worker.trigger_async(request))["message"] for _ in range(2)]


class Mail(TriggerHandler):
    """Fires for every mail that `portable::receive` is told of."""

    def __init__(self) -> None:
        self.bindings: dict[str, TriggerConfig] = {}

    async def register_trigger(self, config: TriggerConfig) -> None:
        """Remember a binding."""
        self.bindings[config.id] = config

    async def unregister_trigger(self, config: TriggerConfig) -> None:
        """Forget it."""
        self.bindings.pop(config.id, None)


mail = Mail()


async def is_wanted(binding: TriggerConfig, payload: dict) -> bool:
    """Ask the binding's condition: only a plain false stops the event."""
    condition = (binding.config or {}).get("condition_function_id")
    if not condition:
        return True
    return await worker.trigger_async({"function_id": condition, "payload": payload}) is not False


async def receive(payload: dict) -> list:
    """Fire all bindings of the trigger type `mail` for which the mail is wanted; return what they answered."""
    return [
        await worker.trigger_async(
            {"function_id": binding.function_id, "payload": payload, "metadata": binding.metadata}
        )
        for binding in list(mail.bindings.values())
        if await is_wanted(binding, payload)
    ]


def on_mail(payload: dict, metadata: Any = None) -> dict:
    """Take one mail."""
    return {"from": payload["from"], "folder": (metadata or {}).get("folder", "inbox")}


def is_short(payload: dict) -> bool:
    """Tell whether a mail is short."""
    return len(payload["text"]) < 10


async def shout(payload: dict) -> dict:
    """Stream a text through a channel and read it back in capitals."""
    channel = await create_channel_async(worker)
    request = {"function_id": "portable::capitals", "payload": {"reader": channel.reader_ref.model_dump()}}
    await channel.writer.write(payload["text"].encode())
    await channel.writer.close_async()
    return {"text": await worker.trigger_async(request)}


async def capitals(payload: dict) -> str:
    """Read a stream to its end."""
    return (await payload["reader"].read_all()).decode().upper()


for handler in (hello, hello_twice, receive, on_mail, is_short, shout, capitals):
    worker.register_function(f"portable::{handler.__name__}", handler)

worker.register_trigger_type({"id": "mail", "description": "Fires for every mail"}, mail)
worker.register_trigger({"type": "mail", "function_id": "portable::on_mail", "config": {}})
worker.register_trigger(
    {
        "type": "mail",
        "function_id": "portable::on_mail",
        "config": {"condition_function_id": "portable::is_short"},
        "metadata": {"folder": "short"},
    }
)
