"""Answers requests on a NATS server with what came: `nats_callee.py URL`. What nats-py costs by itself."""

from __future__ import annotations

import asyncio
import sys

import nats
from nats.aio.msg import Msg


async def main() -> None:
    """Answer until it is killed."""
    client = await nats.connect(sys.argv[1])

    async def answer(message: Msg) -> None:
        await message.respond(message.data)

    await client.subscribe("bench.echo", cb=answer)
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
