"""`[workers.configuration]`: open the store, register the functions and the trigger type, watch the files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from iii import InitOptions, InvocationError, TriggerHandler, Worker, __version__, register_worker
from iii.declarations import load_declarations
from stdlib_workers.configuration.events import subscription_from
from stdlib_workers.configuration.expiry import Expiry
from stdlib_workers.configuration.files import Folder
from stdlib_workers.configuration.functions import Configurations
from stdlib_workers.configuration.options import FORMER_DIRECTORY, options_from
from stdlib_workers.configuration.remote import Remote, follow
from stdlib_workers.events import Background, Bindings, KnownBindings, Outbox
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store, look_after, map_storage_errors, open_store
from stdlib_workers.values import end_worker, read_options

DECLARED = load_declarations(Path(__file__).parent)
NAMES = ("register", "set", "get", "list", "schema")


def main() -> None:
    """Start the worker; exit code 2 for a wrong option, 4 and 5 when the storage must not be used."""
    url = os.environ.get("III_WS_URL", "")
    own_urls = (url, url.replace("//127.0.0.1:", "//localhost:")) if url else ()
    options = read_options(lambda config: options_from(config, own_urls))
    if options.url is not None:
        forward(options.url, options.token)
    folder = None
    if options.directory is not None:
        project = Path(os.environ.get("III_PROJECT", "."))
        path = project / options.directory
        try:
            folder = Folder(path, project / FORMER_DIRECTORY)
        except OSError as error:
            end_worker(f"configuration: there can be no folder {path}: {error.strerror or error}", 2)
    store = open_store("configuration", KEY_VALUE_SCHEMA, in_memory=options.in_memory)
    worker = register_worker(options=InitOptions(worker_name="configuration"))
    register(worker, store, folder, options.ttl_seconds)


def forward(url: str, token: str | None) -> NoReturn:
    """Serve what the engine at `url` keeps."""
    worker = register_worker(options=InitOptions(worker_name="configuration"))
    bindings = Bindings(subscription_from)
    remote = Remote(url, bindings, worker)
    offer(worker, bindings, remote.handler)
    standard_workers = StandardWorkers(worker)
    standard_workers.follow()
    worker.ready()
    background = Background()
    background.call(lambda: background.start(standard_workers.tell()))
    follow(remote, url, token)


def offer(worker: Worker, provider: TriggerHandler, handler: Callable[[str], Callable[[Any], Any]]) -> None:
    """Register the trigger type and the functions. The type comes first: bindings are there before the first write."""
    worker.register_trigger_type(DECLARED.trigger_types["configuration"], provider)
    for name in NAMES:
        function_id = f"configuration::{name}"
        worker.register_function(function_id, handler(name), **DECLARED.functions[function_id])


def register(worker: Worker, store: Store, folder: Folder | None, ttl: float) -> None:
    """Register everything, over a store of this worker's own."""
    key_values = SqliteKeyValue(store)
    expiry = Expiry(key_values.records, ttl, time.time)
    bindings = KnownBindings("configuration", lambda config: expiry.note(subscription_from(config)), key_values.records)
    background = Background()
    worker.before_stop(lambda _: background.stop)
    outbox = Outbox(key_values.journal, worker, background, bindings)
    configurations = Configurations(
        key_values,
        os.environ.get,
        __version__,
        bindings=bindings,
        caller=worker,
        outbox=outbox,
        directory=folder,
    )
    offer(worker, bindings, lambda name: map_storage_errors("ADAPTER_ERROR", getattr(configurations, name)))
    outbox.start()
    bindings.watch(worker, background)
    standard_workers = StandardWorkers(worker)
    standard_workers.follow()
    if folder is not None:
        background.call(lambda: background.start(folder.watch(configurations)))
    background.call(lambda: background.start(expiry.watch(bindings, configurations)))
    look_after(worker, "configuration", store)
    worker.ready()
    background.call(lambda: background.start(standard_workers.tell()))


class StandardWorkers:
    """Tells workers whose settings are kept here that they can be: those that are there, and each that comes."""

    function_id = "configuration::on-functions-available"

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def follow(self) -> None:
        """Hear of functions that come. Call it before the worker is ready."""
        declared = DECLARED.functions[self.function_id]
        self._worker.register_function(
            self.function_id, self._on_functions_available, metadata={"internal": True}, **declared
        )
        self._worker.register_trigger(
            {"type": "engine::functions-available", "function_id": self.function_id, "config": {}}
        )

    async def tell(self) -> None:
        """Tell those that are there. Call it when the worker is ready: they call it back."""
        with suppress(InvocationError):  # the engine stops
            listed = await self._worker.trigger_async("engine::functions::list", {"include_internal": True})
            await self._tell(listed["functions"])

    async def _on_functions_available(self, payload: Any) -> None:
        """Tell the workers that have come that their settings are kept here."""
        added = set(payload.get("added") or ())
        await self._tell([row for row in payload.get("functions") or () if row["function_id"] in added])

    async def _tell(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if (row.get("metadata") or {}).get("live_config"):
                await self._worker.trigger_async(
                    {"function_id": row["function_id"], "payload": {}, "action": {"type": "void"}}
                )


if __name__ == "__main__":
    main()
