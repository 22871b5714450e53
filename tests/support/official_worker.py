"""A worker on the published Python SDK, driven by calls: `official_worker.py URL NAME`."""

import sys
import threading

from iii_helpers.http import HttpInvocationConfig, http
from iii_helpers.observability import Logger

from iii import EnqueueResult, InitOptions, InvocationError, TriggerAction, register_worker
from iii.trigger import TriggerHandler

url, name = sys.argv[1:]
worker = register_worker(url, InitOptions(worker_name=name))
seen = []
bound = {}


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
    if data.get("queue"):
        request["action"] = TriggerAction.Enqueue(queue=data["queue"])
    try:
        result = worker.trigger(request)
        return {"result": result.model_dump() if isinstance(result, EnqueueResult) else result}
    except InvocationError as error:
        return {"code": error.code, "message": error.message}


def big(data):
    return worker.trigger({"function_id": data["function_id"], "payload": "x" * data["size"]}) == "x" * data["size"]


def on_event(data, metadata=None):
    seen.append(data if metadata is None else {"data": data, "metadata": metadata})


def events(data):
    return seen


class Bell(TriggerHandler):
    """A trigger type: it fires each binding once, at registration."""

    async def register_trigger(self, config):
        await worker.trigger_async({"function_id": config.function_id, "payload": {"rings": config.config}})

    async def unregister_trigger(self, config):
        seen.append({"gone": config.id})


def bind(data):
    """Bind a function, `on_event` unless another is named, to a trigger."""
    trigger = {"type": data["type"], "function_id": data.get("function_id", f"{name}::on_event")}
    trigger["config"] = data["config"]
    if data.get("metadata"):
        trigger["metadata"] = data["metadata"]
    bound[data["type"]] = worker.register_trigger(trigger)


def unbind(data):
    bound.pop(data["type"]).unregister()


def register(data):
    """Register one more function; with a `url` it is invoked over HTTP."""
    if "url" in data:
        worker.register_function(data["id"], HttpInvocationConfig(url=data["url"]))
    else:
        worker.register_function(data["id"], lambda _: f"registered by {name}")


def visit(data):
    """Connect once more, with a token, to a listener that has rules; return what it lets us do.

    It stays: its end would take the telemetry of the whole process along.
    """
    headers = {"Authorization": f"Bearer {data['token']}"}
    options = InitOptions(worker_name=f"{name}-visitor", headers=headers, otel={"enabled": False})
    visitor = register_worker(data["url"], options)
    outcomes = {}
    for function_id in data["calls"]:
        try:
            outcomes[function_id] = visitor.trigger({"function_id": function_id, "payload": {"by": name}})
        except InvocationError as error:
            outcomes[function_id] = error.code
    return outcomes


def log(data):
    Logger(service_name=name).info(data["text"])


def page(request):
    return {"status_code": 201, "headers": {"x-by": name}, "body": {"method": request["method"], **request["body"]}}


@http
async def streamed(request, response):
    """Answer with what was sent, in pieces."""
    await response.status(202)
    await response.headers({"content-type": "text/plain"})
    body = await request.request_body.read_all()
    for _ in range(3):
        await response.writer.write(body)
    await response.writer.close_async()


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


worker.register_function(f"{name}::streamed", streamed)
for handler in (echo, describe, fail, echo_async, call, big, on_event, events, bind, unbind, register, visit, page):
    worker.register_function(f"{name}::{handler.__name__}", handler)
for handler in (channel, drain, log):
    worker.register_function(f"{name}::{handler.__name__}", handler)
worker.register_trigger_type({"id": f"{name}-bell", "description": "rings"}, Bell())
threading.Event().wait()
