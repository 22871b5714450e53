"""`[workers.stream]`: open the store, listen, offer the functions and the trigger types. Run by the engine."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, NoReturn

from iii import InitOptions, TriggerHandler, TriggerTypeInput, Worker, register_worker
from stdlib_workers.events import Background, Bindings, Outbox, target_from
from stdlib_workers.storage import KEY_VALUE_SCHEMA, KeyValue, Refusal, SqliteKeyValue, map_storage_errors, open_store
from stdlib_workers.stream.custom import CustomStreams
from stdlib_workers.stream.events import filter_from
from stdlib_workers.stream.functions import Stream
from stdlib_workers.stream.hub import Hub
from stdlib_workers.stream.listener import Listener
from stdlib_workers.stream.log import EventLog
from stdlib_workers.stream.options import Options, options_from
from stdlib_workers.stream.schemas import CODES, EVENT, MEMBERSHIP, PRESENCE, REQUESTS, STREAM
from stdlib_workers.stream.session import Services
from stdlib_workers.values import OptionError


def main() -> None:
    """Start the worker; exit code 2 for a wrong option, 4 and 5 when the storage must not be used."""
    try:
        options = options_from(json.loads(os.environ.get("III_CONFIG") or "{}"))
        project = os.environ.get("III_PROJECT", "")
        pairs = SqliteKeyValue(open_store("stream", KEY_VALUE_SCHEMA, project=project, in_memory=options.in_memory))
    except OptionError as error:
        _refuse(str(error), 2)
    except Refusal as refusal:
        _refuse(f"stream: {refusal}", refusal.exit_code)
    offer(register_worker(options=InitOptions(worker_name="stream")), pairs, options)


def offer(worker: Worker, pairs: KeyValue, options: Options) -> None:
    """Register everything. The trigger types come first: bindings have to be there before the first write."""
    filters, joins, leaves = Bindings(filter_from), Bindings(target_from), Bindings(target_from)
    background, hub = Background(), Hub()
    log = EventLog(pairs, filters, options.history)
    custom_streams = CustomStreams(worker)
    stream = Stream(pairs, log, custom_streams)
    log.outbox = Outbox(pairs.journal, worker, background)
    log.publish = lambda event: background.call(hub.deliver, event)
    listener = Listener(Services(stream, log, hub, worker, joins, leaves), options)
    _listen(listener, background, options)
    worker.before_stop(lambda seconds: background.wait(listener.close(), seconds or None))

    providers: tuple[TriggerHandler, ...] = (filters, joins, leaves)
    for declaration, provider in zip(_types(), providers, strict=True):
        worker.register_trigger_type(declaration, provider)
    for name, request_format in REQUESTS.items():
        handler = map_storage_errors(CODES[name], getattr(stream, name))
        worker.register_function(f"stream::{name}", handler, request_format=request_format)
    worker.register_function("stream::on-functions-changed", custom_streams.forget, metadata={"internal": True})
    worker.register_trigger(
        {"type": "engine::functions-available", "function_id": "stream::on-functions-changed", "config": {}}
    )
    log.outbox.start()


def _listen(listener: Listener, background: Background, options: Options) -> None:
    try:
        port = background.wait(listener.open())
    except OSError as error:
        _refuse(f"stream: cannot listen on {options.host}: {error}; set another port", 2)
    sys.stderr.write(f"stream: ws://{options.host}:{port}\n")


def _types() -> list[TriggerTypeInput]:
    return [
        _type("stream", "An item was created, updated or deleted, or something was sent to a group.", STREAM, EVENT),
        _type("stream:join", "A socket wants to subscribe; return {unauthorized: true} to deny.", MEMBERSHIP, PRESENCE),
        _type("stream:leave", "A socket has unsubscribed or is gone.", MEMBERSHIP, PRESENCE),
    ]


def _type(id: str, description: str, request: dict[str, Any], call: dict[str, Any]) -> TriggerTypeInput:
    return {
        "id": id,
        "description": description,
        "trigger_request_format": request,
        "call_request_format": call,
    }


def _refuse(text: str, code: int) -> NoReturn:
    sys.stderr.write(f"{text}\n")
    raise SystemExit(code)


main()
