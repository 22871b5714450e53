"""`[workers.observability]`: open the archive and serve. Run by the engine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from iii import InitOptions, register_worker
from stdlib_workers.observability.config.options import Options, options_from
from stdlib_workers.observability.service import Service, load_modules
from stdlib_workers.observability.store.archive import Archive
from stdlib_workers.observability.store.schema import SCHEMA
from stdlib_workers.storage import look_after, open_store
from stdlib_workers.values import read_options
from stdlib_workers.values.live_config import LiveConfig

# Whoever is watched goes first: storing what is known of a call must not take the processor from the next one.
NICENESS = 5


def main() -> None:
    """Start the worker; exit code 2 for a wrong option, 4 and 5 when the storage must not be used."""
    options = read_options(_options_from)
    os.nice(NICENESS)  # here, so that all threads have it
    store = open_store("observability", SCHEMA, in_memory=options.in_memory)
    archive = Archive(store, options.limits)
    # What takes long comes before the connection: a worker that registers nothing for a second counts as ready.
    load_modules(options)
    worker = register_worker(options=InitOptions(worker_name="observability"))
    service = Service(worker, archive, options)
    service.register()
    settings = LiveConfig(worker, "observability", worker.config, _options_from, service.take)
    look_after(worker, "observability", store)
    settings.start()
    worker.ready()


def _options_from(config: Mapping[str, Any]) -> Options:
    return options_from(config, os.environ)


main()
