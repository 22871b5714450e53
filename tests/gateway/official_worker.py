"""A worker on the published Python SDK, driven by calls: `official_worker.py URL NAME`."""

import sys
import threading

from iii import InitOptions, InvocationError, TriggerAction, register_worker
from iii.trigger import TriggerHandler

url, name = sys.argv[1:]
worker = register_worker(url, InitOptions(worker_name=name))
seen = []


def echo(data):
    return data


def describe(data, metadata=None):
    return {"data": data, "metadata": metadata}


def fail(data):
    raise ValueError("this is why")


async def echo_async(data):
    return data


def call(data):
    """Call another function with the SDK; return its result or its error."""
    request = {"function_id": data["function_id"], "payload": data.get("payload")}
    if data.get("void"):
        request["action"] = TriggerAction.Void()
    try:
        return {"result": worker.trigger(request)}
    except InvocationError as error:
        return {"code": error.code, "message": error.message}


def big(data):
    return worker.trigger({"function_id": data["function_id"], "payload": "x" * data["size"]}) == "x" * data["size"]


def on_event(data):
    seen.append(data)


def events(data):
    return seen


class Bell(TriggerHandler):
    """A trigger type: it fires each binding once, at registration."""

    async def register_trigger(self, config):
        await worker.trigger_async({"function_id": config.function_id, "payload": {"rings": config.config}})

    async def unregister_trigger(self, config):
        seen.append({"gone": config.id})


def bind(data):
    worker.register_trigger({"type": data["type"], "function_id": f"{name}::on_event", "config": data["config"]})


def channel(data):
    """Write to a channel that another worker reads: text and bytes."""
    from iii.helpers import create_channel

    opened = create_channel(worker)
    threading.Thread(target=fill, args=(opened,)).start()
    return worker.trigger({"function_id": data["reader"], "payload": {"stream": opened.reader_ref.model_dump()}})


def fill(opened):
    import asyncio

    async def write():
        await opened.writer.send_message_async('{"progress": 1}')
        for _ in range(20):
            await opened.writer.write(b"y" * 100_000)
        await opened.writer.close_async()

    asyncio.run(write())


async def drain(data):
    """Read a channel that somebody else writes."""
    return {"bytes": len(await data["stream"].read_all())}


for handler in (echo, describe, fail, echo_async, call, big, on_event, events, bind, channel, drain):
    worker.register_function(f"{name}::{handler.__name__}", handler)
worker.register_trigger_type({"id": f"{name}-bell", "description": "rings"}, Bell())
threading.Event().wait()
