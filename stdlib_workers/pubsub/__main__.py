"""The process of `[workers.pubsub]`: registers the function `publish` and the trigger type `subscribe`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from iii import InitOptions, Worker, register_worker
from iii.declarations import load_declarations
from stdlib_workers.events import Bindings
from stdlib_workers.pubsub.broadcast import Broadcast, Subscription
from stdlib_workers.pubsub.options import check_options


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
    declared = load_declarations(Path(__file__).parent)
    worker.register_trigger_type(declared.trigger_types["subscribe"], bindings)
    worker.register_function("publish", Broadcast(worker, bindings).publish, **declared.functions["publish"])


if __name__ == "__main__":
    main()
