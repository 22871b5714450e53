"""MCP over stdio: a tool in a child process, the official Python SDK at both ends."""

from __future__ import annotations

import asyncio
import sys

from figures import run_tasks
from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp.server import MCPServer


def serve() -> None:
    """Offer the tool."""
    server = MCPServer("bench")

    @server.tool()
    def add(a: int, b: int) -> dict[str, int]:
        """Add two numbers."""
        return {"c": a + b}

    server.run("stdio")


async def main() -> None:
    """Call it."""
    parameters = StdioServerParameters(command=sys.executable, args=[__file__, "serve"])
    async with stdio_client(parameters) as (reading, writing), ClientSession(reading, writing) as session:
        await session.initialize()
        await run_tasks(lambda: session.call_tool("add", {"a": 2, "b": 3}))


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else asyncio.run(main())
