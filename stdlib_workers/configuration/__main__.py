"""`[workers.configuration]`: open the store, register the functions and the trigger type, watch the files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from iii import InitOptions, InvocationError, Worker, __version__, register_worker
from iii.declarations import load_declarations
from stdlib_workers.configuration.events import subscription_from
from stdlib_workers.configuration.files import Folder
from stdlib_workers.configuration.functions import Configurations
from stdlib_workers.events import Background, KnownBindings, Outbox
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store, look_after, map_storage_errors, open_store
from stdlib_workers.values import check_config, end_worker, in_memory, read_options

# Where the public worker keeps its files.
PUBLIC_DIRECTORY = "./config"


class Options(NamedTuple):
    """The options of the worker. `directory`: where the files are, None for none."""

    in_memory: bool = False
    directory: str | None = None


def options_from(config: Mapping[str, Any]) -> Options:
    """Return the options in `[workers.configuration.config]`. OptionError for what does not fit its schema."""
    check_config("configuration", config)
    adapter = config.get("adapter") or {}
    public = (adapter.get("config") or {}).get("directory", PUBLIC_DIRECTORY) if adapter.get("name") == "fs" else None
    return Options(in_memory(config), config.get("directory") or public)


def main() -> None:
    """Start the worker; exit code 2 for a wrong option, 4 and 5 when the storage must not be used."""
    options = read_options(options_from)
    folder = None
    if options.directory is not None:
        path = Path(os.environ.get("III_PROJECT", ".")) / options.directory
        try:
            folder = Folder(path)
        except OSError as error:
            end_worker(f"configuration: there can be no folder {path}: {error.strerror or error}", 2)
    store = open_store("configuration", KEY_VALUE_SCHEMA, in_memory=options.in_memory)
    worker = register_worker(options=InitOptions(worker_name="configuration"))
    register(worker, store, folder)


def register(worker: Worker, store: Store, folder: Folder | None) -> None:
    """Register everything. The trigger type comes first: bindings have to be there before the first write."""
    key_values = SqliteKeyValue(store)
    bindings = KnownBindings("configuration", subscription_from, key_values.records)
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
    declared = load_declarations(Path(__file__).parent)
    worker.register_trigger_type(declared.trigger_types["configuration"], bindings)
    for name in ("register", "set", "get", "list", "schema"):
        handler = map_storage_errors("ADAPTER_ERROR", getattr(configurations, name))
        function_id = f"configuration::{name}"
        worker.register_function(function_id, handler, **declared.functions[function_id])
    outbox.start()
    bindings.watch(worker, background)
    standard_workers = StandardWorkers(worker, declared.functions[StandardWorkers.function_id])
    standard_workers.follow()
    if folder is not None:
        background.call(lambda: background.start(folder.watch(configurations)))
    look_after(worker, "configuration", store)
    worker.ready()
    background.call(lambda: background.start(standard_workers.tell()))


class StandardWorkers:
    """Tells workers whose settings are kept here that they can be: those that are there, and each that comes."""

    function_id = "configuration::on-functions-available"

    def __init__(self, worker: Worker, declared: Mapping[str, Any]) -> None:
        self._worker = worker
        self._declared = declared

    def follow(self) -> None:
        """Hear of functions that come. Call it before the worker is ready."""
        self._worker.register_function(
            self.function_id, self._on_functions_available, metadata={"internal": True}, **self._declared
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
