"""`[workers.state]`: open the store, offer the functions and the trigger type. Run by the engine."""

from __future__ import annotations

import json
import os
import sys

from iii import InitOptions, TriggerTypeInput, Worker, register_worker
from stdlib_workers.events import Background, Bindings, Outbox
from stdlib_workers.state.events import subscription_from
from stdlib_workers.state.functions import State
from stdlib_workers.state.options import Options, options_from
from stdlib_workers.state.schemas import CODES, EVENT, REQUESTS, TRIGGER
from stdlib_workers.storage import KEY_VALUE_SCHEMA, Refusal, SqliteKeyValue, open_store, telling
from stdlib_workers.values import OptionError


def main() -> None:
    """Start the worker; exit code 2 for a wrong option, 4 and 5 when the storage must not be used."""
    try:
        options = options_from(json.loads(os.environ.get("III_CONFIG") or "{}"))
        project = os.environ.get("III_PROJECT", "")
        pairs = SqliteKeyValue(open_store("state", KEY_VALUE_SCHEMA, project=project, in_memory=options.in_memory))
    except OptionError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    except Refusal as refusal:
        sys.stderr.write(f"state: {refusal}\n")
        raise SystemExit(refusal.exit_code) from None
    offer(register_worker(options=InitOptions(worker_name="state")), pairs, options)


def offer(worker: Worker, pairs: SqliteKeyValue, options: Options) -> None:
    """Register everything. The trigger type comes first: bindings have to be there before the first write."""
    bindings = Bindings(subscription_from)
    outbox = Outbox(pairs.journal, worker, Background())
    state = State(pairs, options, bindings, outbox)
    declaration: TriggerTypeInput = {
        "id": "state",
        "description": "A value was created, updated or deleted.",
        "trigger_request_format": TRIGGER,
        "call_request_format": EVENT,
    }
    worker.register_trigger_type(declaration, bindings)
    for name, request_format in REQUESTS.items():
        handler = telling(CODES[name], getattr(state, name))
        worker.register_function(f"state::{name}", handler, request_format=request_format)
    outbox.start()


main()
