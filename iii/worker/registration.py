"""The registration messages of a worker, from what user code gave. Pure but for facts about this process."""

from __future__ import annotations

import os
import sys

from iii.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from iii.worker.json_codec import Message
    from iii.worker.options import InitOptions

REGISTER = "engine::workers::register"


def announcement_from(options: InitOptions, namespace: str | None) -> Message:
    """Return the void call of `engine::workers::register` that is a worker's first line."""
    system = os.uname()
    data: dict[str, Any] = {
        "runtime": "python",
        "version": VERSION,
        "name": options.worker_name or os.environ.get("III_WORKER_NAME") or f"{system.nodename}:{os.getpid()}",
        "os": f"{system.sysname} {system.release} ({system.machine})",
        "pid": os.getpid(),
        "isolation": None,
        "namespace": namespace,
        "python": sys.version.partition(" ")[0],
    }
    if options.worker_description:
        data["description"] = options.worker_description
    if options.telemetry is not None:
        data["telemetry"] = {key: value for key, value in vars(options.telemetry).items() if value}
    return {"type": "invokefunction", "function_id": REGISTER, "action": {"type": "void"}, "data": data}


def function_message(function_id: str, details: dict[str, Any], source: dict[str, Any] | None) -> Message:
    """Return the `registerfunction` of a handler; `source` is where it is defined."""
    message = {"type": "registerfunction", "id": function_id, **details}
    if source is not None:
        message["source"] = source
    return message


def trigger_message(trigger: dict[str, Any], trigger_id: str, worker_namespace: str | None) -> Message:
    """Return the `registertrigger` of a binding. ValueError names what is missing."""
    for key in ("type", "function_id"):
        if not isinstance(trigger.get(key), str) or not trigger[key].strip():
            raise ValueError(f"a trigger needs a {key}, not {trigger.get(key)!r}")
    message: Message = {
        "type": "registertrigger",
        "id": trigger_id,
        "trigger_type": trigger["type"],
        "function_id": trigger["function_id"],
        "config": trigger.get("config") or {},
    }
    optional = {
        "metadata": trigger.get("metadata"),
        "namespace": trigger.get("namespace") or worker_namespace,
        "trigger_namespace": trigger.get("trigger_namespace"),
    }
    message.update({key: value for key, value in optional.items() if value is not None})
    return message
