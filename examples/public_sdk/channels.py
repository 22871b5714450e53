"""Channels: streams beside the payload, in both directions, of bytes and of texts."""

import json
from typing import Any

from iii import InitOptions, register_worker
from iii.helpers import create_channel, create_channel_async, extract_channel_refs, is_channel_ref

worker = register_worker(options=InitOptions(worker_name="channels"))


async def upload(data: dict) -> Any:
    """Stream bytes to a function that counts them."""
    channel = await create_channel_async(worker)
    await channel.writer.write(data["text"].encode() * data["times"])
    await channel.writer.close_async()
    request = {"function_id": "channels::count", "payload": {"file": channel.reader_ref.model_dump()}}
    return await worker.trigger_async(request)


async def count(data: dict) -> int:
    """Count the bytes of a stream, which arrives as a live reader."""
    return len(await data["file"].read_all())


async def download(data: dict) -> dict:
    """Let a function write: progress as texts, the result as bytes."""
    channel = await create_channel_async(worker, 16)
    seen: list = []
    channel.reader.on_message(lambda text: seen.append(json.loads(text)["done"]))
    payload = {"to": {"writer": channel.writer_ref.model_dump()}, "steps": data["steps"]}
    await worker.trigger_async({"function_id": "channels::produce", "payload": payload})
    return {"body": (await channel.reader.read_all()).decode(), "progress": seen}


async def produce(data: dict) -> None:
    """Write to a live writer, wherever in the payload it is."""
    writer = data["to"]["writer"]
    for done in range(data["steps"]):
        await writer.send_message_async(json.dumps({"done": done}))
        await writer.write(f"part {done}\n".encode())
    await writer.close_async()


def describe(_: dict) -> list:
    """Tell what references look like."""
    channel = create_channel(worker)
    payload = {"files": [channel.reader_ref.model_dump()], "n": 1}
    found = [(path, ref.direction) for path, ref in extract_channel_refs(payload)]
    return [found, is_channel_ref(payload["files"][0]), is_channel_ref(payload)]


for handler in (upload, count, download, produce, describe):
    worker.register_function(f"channels::{handler.__name__}", handler)
