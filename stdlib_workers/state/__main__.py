"""`[workers.state]`: open the store, register the functions and the trigger type."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iii import Worker
from iii.declarations import load_declarations
from stdlib_workers.events import Background, KnownBindings, Outbox
from stdlib_workers.state.events import subscription_from
from stdlib_workers.state.functions import CODES, Options, State
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store, map_storage_errors, serve
from stdlib_workers.values import check_config, in_memory, read_options


def options_from(config: Mapping[str, Any]) -> Options:
    """Return the options in `[workers.state.config]`. OptionError for what does not fit its schema."""
    check_config("state", config)
    return Options(in_memory(config), config.get("triggers_enabled", True), config.get("max_value_bytes"))


def main() -> None:
    """Start the worker; exit code 2 for a wrong option, 4 and 5 when the storage must not be used."""
    options = read_options(options_from)

    def begin(worker: Worker, store: Store) -> None:
        register(worker, SqliteKeyValue(store), options, Background())

    serve("state", KEY_VALUE_SCHEMA, begin, in_memory=options.in_memory)


def register(worker: Worker, key_values: SqliteKeyValue, options: Options, background: Background) -> None:
    """Register everything. The trigger type comes first: bindings have to be there before the first write."""
    bindings = KnownBindings("state", subscription_from, key_values.records)
    worker.before_stop(lambda _: background.stop)
    outbox = Outbox(key_values.journal, worker, background, bindings)
    state = State(key_values, options, bindings, outbox)
    declared = load_declarations(Path(__file__).parent)
    worker.register_trigger_type(declared.trigger_types["state"], bindings)
    for name, code in CODES.items():
        function_id = f"state::{name}"
        handler = map_storage_errors(code, getattr(state, name))
        worker.register_function(function_id, handler, **declared.functions[function_id])
    outbox.start()
    bindings.watch(worker, background)


if __name__ == "__main__":
    main()
