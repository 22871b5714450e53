"""NATS request and reply: a server between two clients, all on this machine. `nats_request.py WINDOW CALLS SERVER`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nats
from figures import run_tasks

SUBJECT = "bench.add"


async def serve(address: str) -> None:
    """Answer every request; say so when the server knows of it."""
    client = await nats.connect(address)

    async def add(message: nats.aio.msg.Msg) -> None:
        payload = json.loads(message.data)
        await message.respond(json.dumps({"c": payload["a"] + payload["b"]}).encode())

    await client.subscribe(SUBJECT, cb=add)
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


async def main(server: str) -> None:
    """Start server and callee, call."""
    with tempfile.TemporaryDirectory() as folder:
        command = [server, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", folder]
        with open(f"{folder}/log", "wb") as log:
            broker = subprocess.Popen(command, stdout=log, stderr=log)
        address = await address_of(Path(folder))
        callee = subprocess.Popen([sys.executable, __file__, "serve", address], stdout=subprocess.PIPE)
        try:
            assert callee.stdout is not None
            assert await asyncio.to_thread(callee.stdout.readline)
            client = await nats.connect(address)
            await run_tasks(lambda: client.request(SUBJECT, json.dumps({"a": 2, "b": 3}).encode(), timeout=60))
            await client.close()
        finally:
            for process in (callee, broker):
                process.kill()
                process.communicate()


async def address_of(folder: Path) -> str:
    """Wait for the file in which the server says where it listens."""
    while True:
        for file in folder.glob("*.ports"):
            try:
                return str(json.loads(file.read_text())["nats"][0])
            except ValueError:
                pass  # it is being written
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[2]) if sys.argv[1] == "serve" else main(sys.argv[3]))
