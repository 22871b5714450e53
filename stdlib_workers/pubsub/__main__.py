"""The process of `[workers.pubsub]`: registers the function `publish` and the trigger type `subscribe`."""

from __future__ import annotations

import json
import os
import sys

from iii import InitOptions, TriggerTypeInput, Worker, register_worker
from iii.arguments import CONFIG_PROPERTIES
from stdlib_workers.events import Bindings
from stdlib_workers.pubsub.broadcast import Broadcast, Subscription
from stdlib_workers.pubsub.options import check_options

REQUEST = {
    "type": "object",
    "properties": {"topic": {"type": "string"}, "data": {"description": "Any JSON value."}},
    "required": ["topic"],
}
SUBSCRIBE: TriggerTypeInput = {
    "id": "subscribe",
    "description": "Something was published to a topic; orders.* and orders.> are patterns.",
    "trigger_request_format": {
        "type": "object",
        "properties": {
            "topic": {"type": "string"},
            "condition_function_id": {"type": "string"},
            **CONFIG_PROPERTIES,
        },
    },
}


def main() -> None:
    """Start the worker; exit code 2 for a wrong option."""
    try:
        check_options(json.loads(os.environ.get("III_CONFIG") or "{}"))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    register(register_worker(options=InitOptions(worker_name="pubsub")))


def register(worker: Worker) -> None:
    """Register the trigger type and the function."""
    bindings = Bindings(Subscription)
    worker.register_trigger_type(SUBSCRIBE, bindings)
    worker.register_function("publish", Broadcast(worker, bindings).publish, request_format=REQUEST)


if __name__ == "__main__":
    main()
