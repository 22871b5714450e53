"""Events as they happen: a function of this process is bound to a trigger; each call of it is an event.

The binding ends with the connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cli.client.connection import Connection, new_id


def follow(connection: Connection, trigger_type: str, config: dict[str, Any]) -> Iterator[Any]:
    """Yield the payload of every event, for ever. Raises InvocationError when the binding is refused."""
    function_id = f"cli::{new_id()}"
    connection.send({"type": "registerfunction", "id": function_id, "metadata": {"internal": True}})
    binding = {"id": new_id(), "trigger_type": trigger_type, "function_id": function_id, "config": config}
    connection.send({"type": "registertrigger", **binding})
    while True:
        message = connection.receive()
        if message.get("type") == "triggerregistrationresult" and message.get("error"):
            from cli.client.errors import invocation_error  # only a failure pays for it

            raise invocation_error(trigger_type, message["error"])
        if message.get("type") == "ping":
            connection.send({"type": "pong"})
        if message.get("type") == "invokefunction":
            yield message.get("data")
            # Answered after it was shown: events of one key come one after the other, none counts as seen too early.
            if message.get("invocation_id") is not None:
                fields = {name: message[name] for name in ("invocation_id", "function_id")}
                connection.send({"type": "invocationresult", **fields, "result": None})
