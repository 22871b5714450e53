"""The process of `[workers.stream]`: opens the store, listens, and registers functions and trigger types."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from iii import InitOptions, Worker, register_worker
from iii.declarations import load_declarations
from stdlib_workers.events import Background, Bindings, KnownBindings, Outbox, target_from
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, look_after, map_storage_errors, open_store
from stdlib_workers.stream.custom import CustomStreams
from stdlib_workers.stream.events import filter_from
from stdlib_workers.stream.functions import CODES, Stream
from stdlib_workers.stream.hub import Hub
from stdlib_workers.stream.listener import Listener
from stdlib_workers.stream.log import EventLog
from stdlib_workers.stream.options import Options, options_from
from stdlib_workers.stream.session import Services
from stdlib_workers.values import end_worker, read_options


def main() -> None:
    """Start the worker; exit code 2 for a wrong option, 4 or 5 when the storage must not be used."""
    options = read_options(options_from)
    store = open_store("stream", KEY_VALUE_SCHEMA, in_memory=options.in_memory)
    worker = register_worker(options=InitOptions(worker_name="stream"))
    background = Background()
    services = offer(worker, SqliteKeyValue(store), options, background)
    listen(worker, services, options, background)
    look_after(worker, "stream", store)


def offer(
    worker: Worker,
    pairs: SqliteKeyValue,
    options: Options,
    background: Background,
    clock: Callable[[], float] = time.time,
) -> Services:
    """Register everything. The trigger types come first: bindings have to be there before the first write.

    `clock` gives the seconds since the epoch of events.
    """
    filters = KnownBindings("stream", filter_from, pairs.records)
    joins, leaves = Bindings(target_from), Bindings(target_from)
    hub = Hub()
    outbox = Outbox(pairs.journal, worker, background, filters)
    log = EventLog(pairs, filters, options.history, outbox, lambda event: background.call(hub.deliver, event), clock)
    custom_streams = CustomStreams(worker)
    stream = Stream(pairs, log, custom_streams)
    worker.before_stop(lambda _: background.stop)
    declared = load_declarations(Path(__file__).parent)
    for trigger_type, provider in (("stream", filters), ("stream:join", joins), ("stream:leave", leaves)):
        worker.register_trigger_type(declared.trigger_types[trigger_type], provider)
    handlers = {f"stream::{name}": map_storage_errors(code, getattr(stream, name)) for name, code in CODES.items()}
    for function_id, handler in handlers.items():
        worker.register_function(function_id, handler, **declared.functions[function_id])
    watch = "stream::on-functions-changed"
    worker.register_function(watch, custom_streams.forget, metadata={"internal": True}, **declared.functions[watch])
    worker.register_trigger(
        {"type": "engine::functions-available", "function_id": "stream::on-functions-changed", "config": {}}
    )
    outbox.start()
    filters.watch(worker, background)
    return Services(stream, log, hub, worker, joins, leaves)


def listen(worker: Worker, services: Services, options: Options, background: Background) -> None:
    """Let clients connect; exit code 2 when the address cannot be had."""
    listener = Listener(services, options)
    try:
        port = background.wait(listener.open())
    except OSError as error:
        end_worker(f"stream: cannot listen on {options.host}: {error}; set another port", 2)
    sys.stderr.write(f"stream: ws://{options.host}:{port}\n")
    worker.before_stop(lambda seconds: background.wait(listener.close(), seconds or None))


if __name__ == "__main__":
    main()
